"""How the kernel comes about: built with the package, left out without a compiler, clean under sanitizers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
hatch_build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hatch_build)

SIMULATES = """
import sys
from pathlib import Path
import numpy as np, jax
sys.path.insert(0, sys.argv[1])
from hyperlax.quantum import executor, fused_cpu
from hyperlax.quantum.circuit import Builder, data_reuploading, hardware_efficient
from hyperlax.quantum.tape import lower, shape_of

fused_cpu.KERNEL = Path(sys.argv[2])
executor.choose("cpu")
jax.config.update("jax_enable_x64", True)
circuits = data_reuploading(7, 3, 3), hardware_efficient(3, 2, 4, "xy", "cnot", "all", "zz"), data_reuploading(2, 2, 1)
for circuit in circuits:
    tape, shape = lower(circuit), shape_of(circuit)
    for dtype in (np.float32, np.float64):
        for batch in (1, 17, 150):
            rng = np.random.default_rng(batch)
            params = rng.uniform(-3, 3, circuit.num_params).astype(dtype)
            x = rng.normal(size=(circuit.num_inputs, batch)).astype(dtype) * (1e5 if batch == 17 else 1)
            loss = lambda p, x: executor.expectations(tape, p, x, shape).sum()
            value, slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)
            assert all(np.isfinite(leaf).all() for leaf in (value, *slopes))
print("simulated with", fused_cpu.library())
"""


def hook(root):
    """The build hook, as hatchling makes it."""
    return hatch_build.KernelHook(str(root), {}, None, None, str(root / "dist"), "wheel")


def test_without_a_compiler_the_package_goes_without_the_kernel(monkeypatch, tmp_path, capsys):
    library = tmp_path / "hyperlax" / "quantum" / "_kernel.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"of an older version")
    monkeypatch.setenv("CXX", "no-such-compiler")
    data = {"artifacts": []}
    hook(tmp_path).initialize("standard", data)
    assert "no CPU kernel, circuits run in pure JAX" in capsys.readouterr().err
    assert library.exists() and data == {"artifacts": []}  # not in the wheel, and still the checkout's own
    hook(tmp_path).initialize("editable", data)
    assert not library.exists() and data == {"artifacts": []}
    monkeypatch.setenv("HYPERLAX_KERNEL", "yes")
    with pytest.raises(ValueError, match="HYPERLAX_KERNEL is 'yes': accepted are 0, 1 and nothing"):
        hook(tmp_path).initialize("standard", data)
    monkeypatch.setenv("HYPERLAX_KERNEL", "1")
    with pytest.raises(OSError, match="no-such-compiler"):
        hook(tmp_path).initialize("standard", data)


def test_a_compiler_that_fails_is_named_with_its_first_line(monkeypatch, tmp_path):
    monkeypatch.setenv("CXXFLAGS", "-Wno-such-flag=-1 --no-such-option")
    with pytest.raises(RuntimeError, match="no-such"):
        hatch_build.compile_kernel(ROOT, tmp_path / "_kernel.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizers' libraries as Linux does")
def test_the_kernel_is_clean_under_the_address_and_undefined_behaviour_sanitizers(monkeypatch, tmp_path):
    monkeypatch.setenv("CXXFLAGS", "-O1 -g -DHYPERLAX_NO_CLONES -fsanitize=address,undefined -fno-sanitize-recover=all")
    library = tmp_path / "_kernel.so"
    hatch_build.compile_kernel(ROOT, library)
    names = [f"-print-file-name=lib{name}.so" for name in ("asan", "ubsan")]
    found = [subprocess.check_output(["g++", name], text=True) for name in names]
    env = os.environ | {"LD_PRELOAD": " ".join(map(str.strip, found)), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", SIMULATES, str(ROOT), str(library)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"simulated with {library}"
