"""Where a run's results go: ``OUTPUT_ROOT/<group>/<environment>/run_001``, never over an earlier run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hyperlax.errors import UserError

UNITS = "units"  # folder of the parts of a benchmark's cell, while it is worked on
_RUN_NAME = re.compile(r"run_(\d+)")


def create_run_directory(output_root: str | os.PathLike[str], group: str, env_name: str) -> Path:
    """Makes the next free run directory and returns its path.

    ``mkdir`` either makes a directory or fails, so two processes that start at the same
    moment get two directories.

    Args:
        output_root: made when it does not exist.
        group: what ran, for example ``"ppo_mlp"``.
        env_name: ``"gymnax.pendulum"`` becomes the folder ``gymnax_pendulum``.

    Raises:
        UserError: the directory cannot be made (not writable, or a file is in the way).
    """
    parent = run_parent(output_root, group, env_name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(match[1]) for match in _run_names(parent)), default=0)
        while True:
            directory = parent / f"run_{number:03d}"
            try:
                directory.mkdir()
            except FileExistsError:
                number += 1
            else:
                return directory
    except OSError as error:
        blamed = f" ('{error.filename}')" if error.filename and str(error.filename) != str(output_root) else ""
        raise UserError(
            f"--output-root '{output_root}': cannot make a run directory there: {error.strerror}{blamed}; "
            "give a directory that can be written to"
        ) from None


def run_parent(output_root: str | os.PathLike[str], group: str, env_name: str) -> Path:
    """Returns where the runs of a group in an environment lie."""
    return Path(output_root) / folder_name(group) / folder_name(env_name)


def run_directories(path: Path) -> list[Path]:
    """Returns the run directories at any depth below a directory, the most recently written last."""
    found = []
    for folder, inner, files in os.walk(path):
        if "run.json" in files and Path(folder) != path:
            found.append(Path(folder))
            inner.clear()  # a run holds no other
    return sorted(found, key=lambda run: ((run / "run.json").stat().st_mtime_ns, run.name))


def folder_name(name: str) -> str:
    """Returns a name as a folder can have it."""
    return re.sub(r"[^A-Za-z0-9_\-]+", "_", name)


def _run_names(parent: Path) -> list[re.Match[str]]:
    return [match for entry in parent.iterdir() if (match := _RUN_NAME.fullmatch(entry.name))]
