"""What every benchmark prints about itself: machine, versions, command, and tables in Markdown."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnax", "brax")


def processor() -> str:
    """Returns the processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Returns the versions of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass  # optional
    return found


def our_versions() -> dict[str, str]:
    """Returns the version of hyperlax and of what it stands on."""
    from hyperlax import __version__

    return {"hyperlax": __version__, **versions()}


def command() -> str:
    """Returns the command line of this process, without the folders that only this machine has."""
    parts = [_portable(part) for part in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *parts])


def _portable(argument: str) -> str:
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f".../{path.name}"


def heading(title: str, **more: dict[str, str] | str) -> str:
    """Returns a title and how the results came about: command, machine, versions and whatever else is given."""
    lines = [f"# {title}", "", f"- command: `{command()}`", f"- machine: {processor()}, {platform.system()}"]
    for name, value in more.items():
        text = value if isinstance(value, str) else ", ".join(f"{k} {v}" for k, v in value.items())
        lines.append(f"- {name.replace('_', ' ')}: {text}")
    return "\n".join([*lines, ""])


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table; numbers are put right-aligned, what is None becomes a dash."""
    body = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    rule = ["---:" if i else "---" for i in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (list(columns), rule, *body)) + "\n"


def number(value: float | None, digits: int = 1, unit: str = "") -> str | None:
    """Returns a number with so many decimals and thousands apart, or None where there is none."""
    return None if value is None or value != value else f"{value:,.{digits}f}{unit}"


def write(path: Path, text: str) -> None:
    """Writes a text, making its folder, and says where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {_portable(str(path.resolve()))}", flush=True)


def last_json(output: str) -> dict[str, Any]:
    """Returns the last line of a process's output that is a JSON object."""
    return next(json.loads(line) for line in reversed(output.splitlines()) if line.startswith("{"))
