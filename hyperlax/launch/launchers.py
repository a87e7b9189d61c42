"""Who works off a benchmark: this process, jobs of a SLURM cluster, or Ray's workers.

All of them do the same: :func:`hyperlax.launch.benchmark.work` on a directory that they share. It does not matter how
many there are, when they begin, or which of them are killed.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperlax.errors import RunFailed, UserError, unknown
from hyperlax.launch.benchmark import work

log = logging.getLogger(__name__)

LAUNCHERS = ("local", "slurm", "ray")


def check_launcher(name: str, workers: int) -> None:
    """Raises UserError if there is no such launcher, or it lacks its package."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    package = {"slurm": "submitit", "ray": "ray"}.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(f"launcher '{name}' needs the package {package}: pip install {package}")
    if name == "local" and workers != 1:
        raise UserError(f"--workers {workers}: the local launcher is one process, which uses all devices")


class Worker:
    """One job: works until nothing is left; when its time is over it is queued again, and goes on."""

    def __call__(self, root: str) -> None:
        """Works off a benchmark."""
        work(root)

    def checkpoint(self, root: str) -> Any:
        """Returns what submitit queues when the job is preempted or runs out of time: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, root)


def launch(name: str, root: Path, workers: int, settings: Mapping[str, str], cluster: str = "slurm") -> None:
    """Has a benchmark worked off, and returns when all workers have ended.

    Args:
        name: ``slurm`` or ``ray``.
        root: the benchmark's directory, which all workers see.
        workers: how many.
        settings: of the jobs: for SLURM as sbatch has them (``partition``, ``time``, ``gpus_per_node``, …), for Ray
            those of a remote function (``num_cpus``, ``num_gpus``).
        cluster: submitit's; replaced in tests.

    Raises:
        RunFailed: no worker ended well.
    """
    errors = (_slurm if name == "slurm" else _ray)(root, workers, settings, cluster)
    for error in errors:
        log.warning("a worker has failed, the others go on: %s", error)
    if len(errors) == workers:
        raise RunFailed(f"all {workers} workers have failed: {errors[0]}; see {root}")


def _slurm(root: Path, workers: int, settings: Mapping[str, str], cluster: str) -> list[str]:
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at every look where there is no accounting
    executor = submitit.AutoExecutor(folder=str(root / "slurm" / "%A"), cluster=cluster, slurm_max_num_timeout=1000)
    parameters: dict[str, Any] = {"name": "hyperlax"}
    if cluster == "slurm":
        parameters |= {"slurm_array_parallelism": workers, "slurm_signal_delay_s": 60}
        parameters |= {f"slurm_{key}": _number(value) for key, value in settings.items()}
    try:
        executor.update_parameters(**parameters)
        jobs = executor.map_array(Worker(), [str(root.resolve())] * workers)
    except Exception as error:  # whatever sbatch or submitit object to
        raise UserError(f"--launcher slurm: {' '.join(str(error).split())[:500]}") from None
    print(f"jobs {', '.join(job.job_id for job in jobs)}; their output: {root / 'slurm'}", file=sys.stderr, flush=True)
    return [_short(error) for error in (job.exception() for job in jobs) if error is not None]


def _ray(root: Path, workers: int, settings: Mapping[str, str], cluster: str) -> list[str]:
    del cluster
    import ray

    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    options = {"num_cpus": 1, **{key: _number(value) for key, value in settings.items()}}
    cores = {"JAX_NUM_CPU_DEVICES": str(max(1, int(options["num_cpus"])))}
    try:
        remote = ray.remote(work).options(**options, max_retries=3, runtime_env={"env_vars": cores})
    except (ValueError, TypeError) as error:
        raise UserError(f"--launcher ray: {' '.join(str(error).split())[:500]}") from None
    errors = []
    for result in [remote.remote(str(root.resolve())) for _ in range(workers)]:
        try:
            ray.get(result)
        except Exception as error:
            errors.append(_short(error))
    return errors


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[-500:]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
