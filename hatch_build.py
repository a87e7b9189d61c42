"""Builds the simulator's CPU kernel when the package is installed; without a compiler the package goes without it.

``CXX`` and ``CXXFLAGS`` are respected; ``HYPERLAX_KERNEL=0`` builds none, ``HYPERLAX_KERNEL=1`` insists on one.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("hyperlax", "quantum")
FLAGS = "-std=c++17 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fvisibility=hidden -fPIC -shared"


class KernelHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Compiles ``hyperlax/quantum/kernel`` to ``hyperlax/quantum/_kernel.so``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the kernel to the wheel, or says on standard error why there is none."""
        wanted = os.environ.get("HYPERLAX_KERNEL", "")
        if wanted not in ("", "0", "1"):
            raise ValueError(f"HYPERLAX_KERNEL is '{wanted}': accepted are 0, 1 and nothing")
        library = Path(self.root, FOLDER, "_kernel.so")
        try:
            if wanted == "0":
                raise RuntimeError("HYPERLAX_KERNEL=0")
            compile_kernel(Path(self.root), library)
        except (OSError, RuntimeError, ValueError) as error:
            if wanted == "1":
                raise
            if version == "editable":
                library.unlink(missing_ok=True)  # of an older version
            print(f"hyperlax: no CPU kernel, circuits run in pure JAX ({error})", file=sys.stderr)
            return
        build_data["artifacts"].append(str(FOLDER / library.name))
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("universal2", platform.machine()).replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def compile_kernel(root: Path, library: Path) -> None:
    """Compiles the kernel; raises RuntimeError with the reason, or OSError, if that cannot be done."""
    found = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), "")
    compiler = shlex.split(os.environ.get("CXX", found))
    if not compiler:
        raise RuntimeError("no C++ compiler found")
    headers = find_spec("jaxlib")
    if headers is None or headers.origin is None:
        raise RuntimeError("jaxlib, whose headers it needs, is not there")
    include = Path(headers.origin).parent / "include"
    flags = [*shlex.split(FLAGS), "-w", "-isystem", str(include), *shlex.split(os.environ.get("CXXFLAGS", ""))]
    source, links = root / FOLDER / "kernel" / "ffi.cc", shlex.split(os.environ.get("LDFLAGS", ""))
    temporary = library.with_suffix(f".{os.getpid()}")
    failed = ""
    for clones in ([], ["-DHYPERLAX_NO_CLONES"]):  # some compilers have no functions for several instruction sets
        command = [*compiler, *flags, *clones, str(source), "-o", str(temporary), *links]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            temporary.replace(library)
            return
        failed = failed or (done.stderr.strip().splitlines() or ["failed"])[0]
    temporary.unlink(missing_ok=True)
    raise RuntimeError(f"{compiler[0]}: {failed}")
