"""Who works off a benchmark: this process, jobs of a SLURM cluster, or Ray's workers.

All of them do the same: :func:`hyperlax.launch.benchmark.work` on a directory that they share. It does not matter how
many there are, when they begin, or which of them are killed.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperlax.errors import RunFailed, UserError, unknown
from hyperlax.launch.benchmark import work

log = logging.getLogger(__name__)

LAUNCHERS = ("local", "slurm", "ray")
_INSTALL = {"slurm": "'hyperlax[slurm]'", "ray": "ray"}


def check_launcher(name: str, workers: int, settings: Mapping[str, str], submits: bool = True) -> None:
    """Raises UserError if there is no such launcher, it lacks its package, or its jobs cannot have such settings."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    package = {"slurm": "submitit", "ray": "ray"}.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(f"launcher '{name}' needs the package {package}: pip install {_INSTALL[name]}")
    if name == "local" and workers != 1:
        raise UserError(f"--workers {workers}: the local launcher is one process, which uses all devices")
    if name == "local" and settings:
        raise UserError(f"--launcher-options {', '.join(settings)}: the local launcher has none")
    if name == "slurm":
        _of_slurm(settings)
        if submits and shutil.which("sbatch") is None:
            raise UserError("launcher 'slurm': there is no sbatch here; start it where jobs are submitted")
    elif name == "ray":
        _of_ray(settings)


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
        UserError: the settings are refused.
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
    parameters: dict[str, Any] = {"name": "hyperlax"}
    if cluster == "slurm":
        parameters |= {"slurm_array_parallelism": workers, "slurm_signal_delay_s": 60}
        parameters |= _of_slurm(settings)
    try:
        folder = str(root / "slurm" / "%A")
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=1000)
        executor.update_parameters(**parameters)
        jobs = executor.map_array(Worker(), [str(root.resolve())] * workers)
    except Exception as error:  # whatever sbatch or submitit object to
        raise UserError(f"--launcher slurm: {' '.join(str(error).split())[:500]}") from None
    print(f"jobs {', '.join(job.job_id for job in jobs)}; their output: {root / 'slurm'}", file=sys.stderr, flush=True)
    return [_short(error) for error in (job.exception() for job in jobs) if error is not None]


def _of_slurm(settings: Mapping[str, str]) -> dict[str, Any]:
    """Returns settings of jobs as submitit has them."""
    from submitit import AutoExecutor, SlurmExecutor

    known = SlurmExecutor._valid_parameters() | AutoExecutor._valid_parameters()
    for name in settings:
        if name not in known:
            raise unknown("--launcher-options", name, known)
    times = ("time", "timeout_min")
    return {f"slurm_{name}": _minutes(text) if name in times else _number(text) for name, text in settings.items()}


def _minutes(text: str) -> int:
    """Returns a time limit in whole minutes: sbatch reads more, but with anything else submitit queues no job again."""
    match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+(?::[0-9]+){0,2})", text)
    if match is None:
        raise UserError(f"--launcher-options time={text}: accepted are minutes, M:S, H:M:S, D-H, D-H:M and D-H:M:S")
    parts = [int(part) for part in match[2].split(":")]
    if match[1] is None and len(parts) < 3:
        parts = [0, *parts]
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return 60 * (24 * int(match[1] or 0) + hours) + minutes + -(-seconds // 60)


def _ray(root: Path, workers: int, settings: Mapping[str, str], cluster: str) -> list[str]:
    del cluster
    import ray

    remote = _of_ray(settings)
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    errors = []
    for result in [remote.remote(str(root.resolve())) for _ in range(workers)]:
        try:
            ray.get(result)
        except Exception as error:
            errors.append(_short(error))
    return errors


def _of_ray(settings: Mapping[str, str]) -> Any:
    """Returns :func:`work` as Ray's workers run it."""
    import ray

    options = {"num_cpus": 1, **{key: _number(value) for key, value in settings.items()}}
    try:
        ray.remote(work).options(**options)  # says what is wrong with them
        cores = {"JAX_NUM_CPU_DEVICES": str(max(1, int(options["num_cpus"])))}
        return ray.remote(work).options(**options, max_retries=3, runtime_env={"env_vars": cores})
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"--launcher ray: {' '.join(str(error).split())[:500]}") from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[-500:]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
