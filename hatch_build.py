"""Builds the simulator's CPU kernel when the package is installed; without a compiler the package goes without it.

``CXX`` and ``CXXFLAGS`` are respected; ``HYPERLAX_KERNEL=0`` builds none, ``HYPERLAX_KERNEL=1`` insists on one.
"""

from __future__ import annotations

import os
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
        del version
        wanted = os.environ.get("HYPERLAX_KERNEL", "")
        library = Path(self.root, FOLDER, "_kernel.so")
        library.unlink(missing_ok=True)
        if wanted == "0":
            return
        try:
            compile_kernel(Path(self.root), library)
        except (OSError, RuntimeError) as error:
            if wanted == "1":
                raise
            print(f"hyperlax: no CPU kernel, circuits run in pure JAX ({error})", file=sys.stderr)
            return
        build_data["artifacts"].append(str(FOLDER / library.name))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


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
    source = root / FOLDER / "kernel" / "ffi.cc"
    temporary = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [*compiler, *flags, str(source), "-o", str(temporary)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        temporary.unlink(missing_ok=True)
        raise RuntimeError(f"{compiler[0]}: {(done.stderr.strip().splitlines() or ['failed'])[0]}")
    temporary.replace(library)
