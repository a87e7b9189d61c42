"""One measured process: it builds and compiles a job, then trains from the start whenever it is told to.

Both libraries are measured through this file, each in a process and an environment of its own, so it
imports neither. The conversation is a JSON object a line: the job comes as the only argument, what
compilation cost is the first answer, and every line read after that causes a run and its answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Environment steps of one update, and the environments that an algorithm is measured on.
STEPS_PER_UPDATE = {"ppo": 1024, "pqn": 1024, "dqn": 8, "sac": 8}
ENVIRONMENTS = {
    "ppo": ("cartpole", "pendulum"), "pqn": ("cartpole",), "dqn": ("cartpole",), "sac": ("pendulum",)
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Attributes:
        algorithm: ``ppo``, ``dqn`` and so on.
        environment: ``cartpole`` or ``pendulum``.
        configurations: trained at once, with learning rates of their own.
        updates: of each.
        evaluation: whether what is compiled contains the evaluation of policies.
    """

    algorithm: str
    environment: str
    configurations: int
    updates: int
    evaluation: bool

    @property
    def steps(self) -> int:
        """Environment steps of one configuration."""
        return STEPS_PER_UPDATE[self.algorithm] * self.updates


# --- in the measured process ---------------------------------------------------------------------


def serve(prepare: Callable[[], dict[str, str]], build: Callable[[Job], Callable[[], None]]) -> None:
    """Compiles the job that the command line holds, then runs it once for every line of input.

    Args:
        prepare: imports the library and starts its backend, untimed; returns versions.
        build: makes a function that trains from the start and returns when all is done.
    """
    job = Job(**json.loads(sys.argv[1]))
    with _timed() as importing:
        versions = prepare()
    with _timed() as compilation, _stages() as stages:
        train = build(job)
    import jax

    details = {"import_seconds": importing["seconds"], "devices": jax.local_device_count(), "versions": versions}
    _answer(**compilation, **stages, **details)
    for _ in sys.stdin:
        with _timed() as run:
            train()
        _answer(**run, memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@contextlib.contextmanager
def _timed() -> Iterator[dict[str, float]]:
    times: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield times
    times |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


@contextlib.contextmanager
def _stages() -> Iterator[dict[str, float]]:
    """Adds up what JAX itself says of compilation: seconds of each stage, and the number of compilations."""
    import jax

    stages: dict[str, float] = {"trace_seconds": 0.0, "lower_seconds": 0.0, "xla_seconds": 0.0, "compilations": 0}
    names = {
        "jaxpr_trace_duration": "trace",
        "jaxpr_to_mlir_module_duration": "lower",
        "backend_compile_duration": "xla",
    }

    def listen(event: str, seconds: float, **_: Any) -> None:
        stage = names.get(event.rsplit("/", 1)[-1])
        if stage is not None:
            stages[f"{stage}_seconds"] += seconds
            stages["compilations"] += stage == "xla"

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield stages
    jax.monitoring.unregister_event_duration_listener(listen)


def _answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


# --- in the process that measures ----------------------------------------------------------------


class Worker:
    """A started process.

    Args:
        python: its interpreter.
        script: which calls :func:`serve`.
        job: what to do.
        cores: it is bound to these.
    """

    def __init__(self, python: str, script: Path, job: Job, cores: set[int]) -> None:
        unwanted = ("JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
        env = {name: value for name, value in os.environ.items() if name not in unwanted}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            [python, str(script), json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**env, "JAX_PLATFORMS": "cpu"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def answer(self) -> dict[str, Any]:
        """Waits for the next answer.

        Raises:
            SystemExit: the process has died; with the end of what it wrote.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        raise SystemExit(
            f"a measured process died ({' '.join(self._process.args[:2])}):\n{self._errors.read()[-3000:]}"
        )

    def run(self) -> None:
        """Starts a run; its answer is to be waited for."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._errors.close()
