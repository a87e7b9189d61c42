"""What the planner returns: programs, their tasks, and what they are estimated to cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperlax.engine.program import Task


@dataclass(frozen=True)
class PlannedProgram:
    """One program of a plan.

    Attributes:
        tasks: the first ``num_lanes`` are those that the lanes start with, in order, None for a lane
            without; the others start as lanes become free.
        shape: what it is compiled for.
        num_lanes: over all devices.
        group: lanes that run in lockstep.
        seconds: estimated time to run, without compilation.
        compile_seconds: estimated time to compile.
        padding: estimated share of the arithmetic that no sample asked for.
        memory: estimated bytes on all devices.
        memory_limits: whether there would be more lanes if there were more memory.
    """

    tasks: tuple[Task | None, ...]
    shape: Any
    num_lanes: int
    group: int
    seconds: float
    compile_seconds: float
    padding: float
    memory: int
    memory_limits: bool

    @property
    def total_seconds(self) -> float:
        """Estimated time to compile and run."""
        return self.seconds + self.compile_seconds

    @property
    def real_tasks(self) -> list[Task]:
        """The tasks without the gaps."""
        return [task for task in self.tasks if task is not None]


@dataclass(frozen=True, repr=False)
class Plan:
    """How all tasks are assigned to programs, which run one after the other.

    Attributes:
        programs: longest first.
        num_devices: over which the lanes of a program are spread.
    """

    programs: tuple[PlannedProgram, ...]
    num_devices: int

    @property
    def compile_seconds(self) -> float:
        """Estimated time to compile all programs, some of it while others run."""
        return sum(program.compile_seconds for program in self.programs)

    @property
    def seconds(self) -> float:
        """Estimated time of all programs, with compilation."""
        return sum(program.total_seconds for program in self.programs)

    @property
    def memory(self) -> int:
        """Estimated bytes of the program that needs most."""
        return max(program.memory for program in self.programs)

    @property
    def padding(self) -> float:
        """Estimated share of all work that no sample asked for."""
        total = sum(program.seconds for program in self.programs)
        return sum(program.seconds * program.padding for program in self.programs) / total

    def as_rows(self) -> list[dict[str, Any]]:
        """Returns what there is to say of each program, as ``run.json`` has it."""
        return [
            {
                "program": number,
                "samples": sorted({task.sample_id for task in program.real_tasks}),
                "tasks": len(program.real_tasks),
                "lanes": program.num_lanes,
                "lockstep": program.group,
                "shape": program.shape.describe(),
                "predicted_seconds": round(program.seconds, 2),
                "predicted_compile_seconds": round(program.compile_seconds, 2),
                "predicted_padding": round(program.padding, 4),
                "predicted_memory_mib": round(program.memory / 2**20, 1),
            }
            for number, program in enumerate(self.programs)
        ]

    def __repr__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Returns the plan as a table in plain text."""
        lines = [
            f"{'program':>7} {'samples':>7} {'tasks':>6} {'lanes':>6} {'lockstep':>8} {'padding':>8} {'memory':>10} "
            f"{'seconds':>9}  shape"
        ]
        for number, program in enumerate(self.programs):
            samples = len({task.sample_id for task in program.real_tasks})
            lines.append(
                f"{number:>7} {samples:>7} {len(program.real_tasks):>6} {program.num_lanes:>6} {program.group:>8} "
                f"{program.padding:>8.0%} "
                f"{program.memory / 2**20:>6.0f} MiB {program.seconds:>9.1f}  {program.shape.describe()}"
            )
        lines += [
            f"program {number}: memory for {program.num_lanes} of its {len(program.real_tasks)} tasks at a time"
            for number, program in enumerate(self.programs)
            if program.memory_limits
        ]
        lines.append(
            f"{_count(len(self.programs), 'program')} on {_count(self.num_devices, 'device')}, "
            f"{self.padding:.0%} padding, at most {in_bytes(self.memory)}; estimated {duration(self.seconds)}, "
            f"of which compilation {duration(self.compile_seconds)}"
        )
        return "\n".join(lines)


def in_bytes(number: float) -> str:
    """Returns a number of bytes as people read it."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Returns a time as people read it."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
