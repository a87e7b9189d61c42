"""Population-based training (Jaderberg et al. 2017): members are lanes, and the worst take up the state of the best.

A generation ends when every member of a population has reached the same point of the evaluations' grid. Then each of
the worst, and each that has diverged, copies all of a lane that is one of the best (exploit), its networks, optimiser,
replay, environments and structure, and changes the hyperparameters that are only numbers in the program (explore).
Random numbers stay the member's own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hyperlax.engine.program import Task
from hyperlax.engine.scheduler import Copy, Verdict, Waiting
from hyperlax.errors import UserError
from hyperlax.results.resume import Mark
from hyperlax.results.storage import write_atomic
from hyperlax.results.writer import RunWriter
from hyperlax.spaces.distributions import Distribution, Integer, LogUniform, Uniform
from hyperlax.spaces.files import Sample

_ATTEMPTS = 10  # at hyperparameters that do not contradict one another
Configured = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Evolution:
    """How a population changes.

    Attributes:
        every: evaluations from one generation to the next.
        quantile: share of the members that are replaced, and of those that replace them.
        perturbation: how far a hyperparameter moves, as a share of its range, on its own scale.
        resample: probability that it is drawn anew instead.
    """

    every: int = 1
    quantile: float = 0.25
    perturbation: float = 0.1
    resample: float = 0.25

    def check(self, num_evaluations: int) -> None:
        """Raises UserError if a value is not accepted."""
        if num_evaluations < 2:
            raise UserError(f"num_evaluations {num_evaluations}: a population needs 2 or more")
        if not 1 <= self.every < num_evaluations:
            raise UserError(
                f"exploit_every {self.every} with {num_evaluations} evaluations: accepted is 1 … {num_evaluations - 1}"
            )
        if not 0 < self.quantile <= 0.5:
            raise UserError(f"exploit_quantile {self.quantile}: accepted is more than 0 and at most 0.5")
        if not 0 < self.perturbation <= 1:
            raise UserError(f"perturbation {self.perturbation}: accepted is more than 0 and at most 1")
        if not 0 <= self.resample <= 1:
            raise UserError(f"resample_probability {self.resample}: accepted is 0 … 1")

    def explored(self, values: Mapping[str, Any], space: Mapping[str, Distribution], rng: np.random.Generator) -> dict:
        """Returns values with each hyperparameter of a space moved up or down, or drawn anew."""
        news = {}
        for name, distribution in space.items():
            if rng.random() < self.resample:
                news[name] = distribution.from_unit(rng.random())
            else:
                news[name] = moved(distribution, values[name], self.perturbation * rng.choice((-1.0, 1.0)))
        return {**values, **news}


def changeable(space: Mapping[str, Distribution], scalars: Collection[str]) -> dict[str, Distribution]:
    """Returns the part of a space that may change while a lane trains: numbers that are no structure."""
    return {name: d for name, d in space.items() if name in scalars and isinstance(d, Uniform | LogUniform | Integer)}


def moved(distribution: Distribution, value: float, by: float) -> float:
    """Returns a value moved by a share of its distribution's range, on its scale, and kept in it."""
    assert isinstance(distribution, Uniform | LogUniform | Integer)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, LogUniform) or (isinstance(distribution, Integer) and distribution.log):
        new = value * (high / low) ** by
    else:
        new = value + by * (high - low)
    if isinstance(distribution, Integer):
        new = round(new) if round(new) != value else value + (1 if by > 0 else -1)
    return min(max(new, low), high)


@dataclass
class Member:
    """A member of a population.

    Attributes:
        values: its hyperparameters.
        task: what its lane is at.
        origin: its first ancestor, whose structure it has.
        points: of the grid that it has passed.
        score: its last return; None where it has diverged.
        env_steps: at its last evaluation, which may be more than those of a state that it took up then.
    """

    values: dict[str, Any]
    task: Task
    origin: int
    points: int = 0
    score: float | None = -math.inf
    env_steps: int = 0


class Populations:
    """The queue of some populations, which know nothing of each other.

    Args:
        samples: of all members, those of one population after those of another, numbered from 0.
        size: members of a population.
        evolution: how they change.
        space: what may change.
        configured: makes hyperparameters of values; raises UserError where they contradict one another.
        grid: environment steps of the evaluations.
        seed: of all choices.
        order: members by lane, None for lanes without.
        file: where the lineage is written.

    Attributes:
        members: by sample.
        counts: of members that have ended, by status.
        lineage: a row a member and generation: ``population``, ``generation``, ``grid_step``, ``member``, ``parent``
            (itself where it goes on as it is), its own ``return`` before, and the values with which it goes on.
    """

    writer: RunWriter

    def __init__(
        self,
        samples: list[Sample],
        size: int,
        evolution: Evolution,
        space: Mapping[str, Distribution],
        configured: Configured,
        grid: Sequence[int],
        seed: int,
        order: Sequence[int | None],
        file: Path,
    ) -> None:
        self.samples, self._size, self._evolution, self._space = samples, size, evolution, space
        self._configured, self._grid, self._seed, self._order, self._file = configured, grid, seed, order, file
        self.members = {s.sample_id: self._member(s.sample_id, dict(s.values), s.sample_id) for s in samples}
        self._generations = [0] * (len(samples) // size)
        self._ended: dict[int, str] = {}
        self.lineage: list[dict[str, Any]] = []
        for number in range(len(self._generations)):
            self._record(number, 0, {}, {})

    # --- the queue ---------------------------------------------------------------------------------

    def first(self, num_lanes: int) -> list[Task | None]:
        """Returns a task for every lane; none where all members have ended."""
        self._write_lineage()
        tasks = [None if n is None or n in self._ended else self.members[n].task for n in self._order]
        return [*tasks, *[None] * (num_lanes - len(tasks))]

    def take(self) -> Task | None:
        """Has nothing more to give: all members began together."""
        return None

    def going(self, sample_id: int, seed: int) -> Task | None:
        """Returns the task that a saved lane goes on with."""
        del seed
        return None if sample_id in self._ended else self.members[sample_id].task

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Verdict:
        """Ends the generations that are complete; members that are ahead of theirs wait."""
        for row in rows:
            member = self.members[row["sample_id"]]
            member.points += 1
            member.score, member.env_steps = row["mean_return"], row["env_steps"]
        for task in diverged:
            self.members[task.sample_id].score = None
        held: set[Task] = set()
        copies: dict[Task, Copy] = {}
        ended = False
        for population in range(len(self._generations)):
            generation = self._generations[population]
            copies |= self._advance(population)
            ended = ended or self._generations[population] != generation
            held |= {member.task for member in self._waiting(population)}
        if ended:
            self._write_lineage()
        return Verdict(copies=copies, held=held)

    def ended(self, statuses: Mapping[Task, str]) -> None:
        """Hears which members have ended."""
        self._ended |= {task.sample_id: status for task, status in statuses.items()}

    # --- generations -------------------------------------------------------------------------------

    def _of(self, population: int) -> dict[int, Member]:
        first = population * self._size
        return {number: self.members[number] for number in range(first, first + self._size)}

    def _boundary(self, population: int) -> int | None:
        """Returns the points after which the present generation ends; None for the last."""
        points = self._evolution.every * (self._generations[population] + 1)
        return points if points < len(self._grid) else None

    def _waiting(self, population: int) -> list[Member]:
        """Returns the members that have done what their generation is to do."""
        boundary = self._boundary(population)
        members = self._of(population).values()
        if boundary is None or all(member.score is None for member in members):
            return []
        return [m for m in members if (m.points >= boundary or m.score is None) and m.points < len(self._grid)]

    def _advance(self, population: int) -> dict[Task, Copy]:
        """Ends the present generation if all members have done it; returns what lanes take up."""
        boundary, members = self._boundary(population), self._of(population)
        alive = [member for member in members.values() if member.score is not None]
        if boundary is None or not alive or any(member.points < boundary for member in alive):
            return {}
        # One update may have passed several generations' ends, in which there was nothing to compare then.
        self._generations[population] = self._passed(population)
        copies, parents = self._exploited(population, members)
        returns = {number: member.score for number, member in members.items()}
        self._record(population, self._generations[population], parents, returns)
        self._generations[population] = self._passed(population)  # copies may be of members that are ahead
        return copies

    def _passed(self, population: int) -> int:
        """Returns how many generations all members that live have done."""
        alive = (member for member in self._of(population).values() if member.score is not None)
        return min(member.points for member in alive) // self._evolution.every

    def _exploited(self, population: int, members: Mapping[int, Member]) -> tuple[dict[Task, Copy], dict[int, int]]:
        """Replaces the worst members; returns what their lanes take up, and the parent of each."""
        going = {number: member for number, member in members.items() if member.points < len(self._grid)}
        alive = sorted((m.score, n) for n, m in going.items() if m.score is not None and math.isfinite(m.score))
        count = max(1, int(self._evolution.quantile * self._size))
        best = [number for _, number in alive[-count:]]
        worst = [number for score, number in alive[:count] if score < alive[-count:][0][0]]
        lost = [number for number, member in going.items() if member.score is None or not math.isfinite(member.score)]
        copies: dict[Task, Copy] = {}
        parents: dict[int, int] = {}
        for number in [*worst, *lost] if best else ():
            rng = np.random.default_rng([self._seed, population, self._generations[population], number])
            parents[number] = int(rng.choice(best))
            source, before = members[parents[number]], members[number].task
            child = self._child(number, source, rng)
            child.env_steps = members[number].env_steps
            self.members[number] = child
            copies[before] = Copy(source.task, self.members[number].task)
        return copies, parents

    def _child(self, number: int, source: Member, rng: np.random.Generator) -> Member:
        for _ in range(_ATTEMPTS):
            try:
                values = self._evolution.explored(source.values, self._space, rng)
                child = self._member(number, values, source.origin)
            except UserError:
                continue
            child.points, child.score = source.points, source.score
            return child
        task = Task(number, 0, source.task.hyperparams)
        return Member(source.values, task, source.origin, source.points, source.score)

    def _member(self, number: int, values: dict[str, Any], origin: int) -> Member:
        return Member(values, Task(number, 0, self._configured(values)), origin)

    def _record(
        self, population: int, generation: int, parents: Mapping[int, int], returns: Mapping[int, float | None]
    ) -> None:
        """Adds a generation to the lineage."""
        step = self._grid[generation * self._evolution.every - 1] if generation else 0
        for number, member in self._of(population).items():
            row = {
                "population": population,
                "generation": generation,
                "grid_step": step,
                "member": number,
                "parent": parents.get(number, number),
                "return": returns.get(number),
            }
            self.lineage.append(row | {name: member.values[name] for name in self._space})

    def _write_lineage(self) -> None:
        """Writes the lineage, a table that is replaced as a whole."""
        table = pd.DataFrame(self.lineage).sort_values(["population", "generation", "member"], kind="stable")
        write_atomic(self._file, table.to_csv(index=False, lineterminator="\n").encode())

    # --- going on ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold."""
        members = [[n, self._changed(m), m.origin, m.points, m.score, m.env_steps] for n, m in self.members.items()]
        return {
            "members": members,
            "generations": self._generations,
            "ended": sorted(self._ended.items()),
            "lineage": self.lineage,
        }

    def restore(self, state: Mapping[str, Any]) -> set[tuple[int, int]]:
        """Goes back to where a checkpoint was; returns the (sample, seed)s that had ended then."""
        values = {sample.sample_id: sample.values for sample in self.samples}
        for number, changed, origin, *reached in state["members"]:
            member = self._member(number, {**values[origin], **changed}, origin)
            member.points, member.score, member.env_steps = reached
            self.members[number] = member
        self._generations, self.lineage = list(state["generations"]), list(state["lineage"])
        self._ended = {number: status for number, status in state["ended"]}
        self._write_lineage()
        return {(number, 0) for number in self._ended}

    def mark(self, number: int, mark: Mark) -> Mark:
        """Returns up to which steps what was written of a member counts, given how far its lane is."""
        return mark._replace(env_steps=max(mark.env_steps, self.members[number].env_steps))

    def _changed(self, member: Member) -> dict[str, Any]:
        return {name: member.values[name] for name in self._space}

    # --- how it goes -------------------------------------------------------------------------------

    def progress(self) -> tuple[int, float, tuple[int, float] | None, str]:
        """Returns how many members are done, which share of all steps, the best, and the generation."""
        share = sum(member.points for member in self.members.values()) / (len(self._grid) * len(self.members))
        scores = {n: m.score for n, m in self.members.items() if m.score is not None and math.isfinite(m.score)}
        best = max(scores.items(), key=lambda item: item[1], default=None)
        return len(self._ended), share, best, f"generation {min(self._generations)}"

    def counted(self) -> dict[str, Any]:
        """Returns the members by status, for ``run.json``."""
        return {"members": dict(Counter(self._ended.values())), "generations": self._generations}


class Replay(Waiting):
    """A queue that trains fresh seeds with hyperparameters that change as those of a member's ancestors did.

    Args:
        tasks: one a seed, by lane.
        changes: hyperparameters from a number of points on, the first from 0.
    """

    def __init__(self, tasks: Sequence[Task | None], changes: Sequence[tuple[int, Any]]) -> None:
        super().__init__(tasks)
        self._changes = changes
        self._training: dict[int, Task] = {task.seed: task for task in tasks if task is not None}
        self._points = Counter[int]()

    def evaluated(self, rows: Sequence[Mapping[str, Any]], diverged: Sequence[Task]) -> Verdict:
        """Changes the hyperparameters of the seeds that have come so far."""
        lost = {task.seed for task in diverged}
        self._points.update(row["seed"] for row in rows)
        copies = {}
        for seed in {row["seed"] for row in rows} - lost:
            task = self._training[seed]
            hyperparams = next(h for begins, h in reversed(self._changes) if begins <= self._points[seed])
            if hyperparams != task.hyperparams:
                self._training[seed] = Task(task.sample_id, seed, hyperparams)
                copies[task] = Copy(task, self._training[seed])
        return Verdict(copies=copies)
