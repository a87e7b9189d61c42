#!/usr/bin/env python3
"""Creates a virtual environment and installs packages into it, fast where that is possible.

    python3 envs/install.py .venv -e '.[dev]'

Everything after the folder is passed to ``uv pip install``, or to ``pip install`` where uv
cannot be had or does not succeed. Needs nothing but a Python with ``venv`` and ``pip``.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)

# pip's settings and the variables by which uv takes the same; uv does not read pip's own files.
UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def create(folder: Path) -> Path:
    """Returns the environment's interpreter, creating the environment where there is none that works."""
    python = folder / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0:
        return python
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"error: Python {sys.version.split()[0]} is not supported, 3.11 to 3.13 are: "
            "name one, for example `make venv PYTHON=python3.12`"
        )
    if subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=False).returncode != 0:
        sys.exit("error: `python3 -m venv` failed; on Debian and Ubuntu it is in the package python3-venv")
    return python


def pip_settings(python: Path) -> dict[str, str]:
    """Returns pip's effective settings by their short names; the environment's variables win over its files."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, tuple[int, str]] = {}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section, -1)
        if rank >= settings.get(key, (0, ""))[0]:
            settings[key] = rank, str(ast.literal_eval(value))
    return {key: value for key, (_, value) in settings.items()}


def uv_environment(python: Path) -> dict[str, str]:
    """Returns environment variables that make uv install from where pip would."""
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # pip's rule: the best version over all indexes
    for key, value in pip_settings(python).items():
        if key in UV_VARIABLES:
            variables[UV_VARIABLES[key]] = " ".join(value.split())
    if "UV_FIND_LINKS" in variables:
        variables["UV_FIND_LINKS"] = ",".join(variables["UV_FIND_LINKS"].split())
    return variables | dict(os.environ)


def install(python: Path, arguments: list[str]) -> int:
    """Installs with uv or else with pip; returns the exit code."""
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if subprocess.run([*pip, "uv"], check=False).returncode == 0:
        uv = [python, "-m", "uv", "pip", "install", "--quiet", "--python", python, *arguments]
        if subprocess.run(uv, env=uv_environment(python), check=False).returncode == 0:
            return 0
        print("uv did not succeed; trying pip, which takes longer", file=sys.stderr)
    return subprocess.run([*pip, *arguments], check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(install(create(Path(sys.argv[1]).absolute()), sys.argv[2:]))
