"""Which devices lanes are spread over, and the compilation cache: set up once, before JAX starts."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import AxisType, Mesh

from hyperlax.errors import UserError

AXIS = "devices"


def give_back_memory() -> None:
    """Gives the machine what programs held that are done: rings of references, and a heap with holes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def configure(cache: bool = True) -> None:
    """Makes every CPU core a device and keeps compiled programs between processes.

    Settings that the user has made (``JAX_NUM_CPU_DEVICES``, ``JAX_COMPILATION_CACHE_DIR``, a
    backend that is already running) are left alone.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", num_cores())
        except RuntimeError:  # the user's program has already used JAX: its devices are what there is
            if jax.default_backend() == "cpu" and jax.local_device_count() < num_cores():
                warnings.warn(
                    f"JAX was started before hyperlax and sees {jax.local_device_count()} of {num_cores()} cores: "
                    "import hyperlax and train first, or set JAX_NUM_CPU_DEVICES",
                    stacklevel=3,
                )
    if cache and getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        directory = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hyperlax" / "xla"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"no compilation cache: cannot write {directory} ({error})", stacklevel=2)
            return
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_mesh(num_devices: int | None = None, most: int | None = None) -> Mesh:
    """Returns a mesh of the first local devices, all of them by default, but no more than ``most``.

    Raises:
        UserError: fewer devices exist than asked for.
    """
    devices = jax.local_devices()
    if num_devices is not None and not 1 <= num_devices <= len(devices):
        raise UserError(f"num_devices {num_devices}: this machine has 1 … {len(devices)} ({devices[0].platform})")
    devices = devices[: min(num_devices or len(devices), most or len(devices))]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


class Memory(NamedTuple):
    """Bytes on all devices of a mesh together: what there is, and what of it is free now."""

    total: int
    free: int


def memory(mesh: Mesh) -> Memory:
    """Returns the memory of the mesh's devices; that of a CPU is the machine's, or the container's if it has less."""
    if mesh.devices.flat[0].platform == "cpu":
        found = [_machine_memory(), *_container_memory()]
        return Memory(min(m.total for m in found), min(m.free for m in found))
    stats = [d.memory_stats() or {} for d in mesh.devices.flat]
    limits = [s.get("bytes_limit", 0) for s in stats]
    used = [s.get("bytes_in_use", 0) for s in stats]
    return Memory(sum(limits), sum(limits) - sum(used))


def _machine_memory() -> Memory:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError):  # Linux knows how much of its file cache it could give back
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        free = 1024 * int(lines["MemAvailable"].split()[0])
    return Memory(total, free)


def _container_memory() -> Iterator[Memory]:
    """Yields the limit of the control group, of version 2 or 1, if there is one."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            total = int(Path("/sys/fs/cgroup", limit).read_text())
            yield Memory(total, max(0, total - int(Path("/sys/fs/cgroup", used).read_text())))
