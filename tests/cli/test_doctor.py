"""What ``hyperlax doctor`` says."""

from __future__ import annotations

import pytest

from hyperlax.cli import main
from hyperlax.quantum import fused_cpu


@pytest.mark.parametrize("built", [True, False])
def test_it_says_what_this_installation_can_do(capsys, monkeypatch, tmp_path, built):
    library = tmp_path / "_kernel.so"
    monkeypatch.setattr(fused_cpu, "library", lambda: library if built else None)
    assert main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if not line.startswith(" "))
    assert list(lines) == ["versions", "devices", "kernel", "cache", "brax", "quantum", "search"]
    assert lines["versions"].startswith("hyperlax ")
    expected = "built (_kernel.so); circuits run on the fused kernel" if built else "circuits run on pure JAX"
    assert lines["kernel"].endswith(expected)
