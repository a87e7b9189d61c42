"""The command that says what this installation can do."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import typer

from hyperlax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnax")
# What each extra of pyproject.toml is needed for, and the module that shows that it is there.
EXTRAS = {
    "brax": ("brax", "environments brax.*"),
    "quantum": ("pennylane", "circuits exported to PennyLane"),
    "search": ("optuna", "optuna-hp-search"),
}


def doctor() -> None:
    """Say which versions, devices, kernel, cache and extras this installation has.

    \b
    Example:
      hyperlax doctor
    """
    for name, text in _report():
        typer.echo(f"{name:<11} {text}")


def _report() -> Iterator[tuple[str, str]]:
    import jax

    from hyperlax.engine import devices
    from hyperlax.quantum import executor, fused_cpu

    devices.configure()
    yield "versions", f"hyperlax {__version__}, python {platform.python_version()}"
    yield "", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    local = jax.local_devices()
    memory = devices.memory(devices.local_mesh()).total / 2**30
    yield "devices", f"{len(local)} × {local[0].device_kind} ({local[0].platform}), {memory:.1f} GiB"
    library = fused_cpu.library()
    why = f"{fused_cpu.problem()}; HYPERLAX_KERNEL=1 pip install -v … says why"
    built = f"built ({library.name})" if library else why
    yield "kernel", f"{built}; circuits run on {'the fused kernel' if executor.current() == 'cpu' else 'pure JAX'}"
    cache = getattr(jax.config, "jax_compilation_cache_dir", None)
    folder = Path(cache or "")
    files = [file.stat().st_size for file in folder.iterdir() if file.is_file()] if cache and folder.is_dir() else []
    yield "cache", f"{cache}: {len(files)} files, {sum(files) / 2**20:.0f} MiB" if cache else "none"
    for extra, (module, purpose) in EXTRAS.items():
        there = find_spec(module) is not None
        yield (
            extra,
            f"installed, for {purpose}" if there else f"missing (pip install 'hyperlax[{extra}]'), for {purpose}",
        )
