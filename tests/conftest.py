"""For all tests: two devices on any machine, and tests that share a compiled program in one process."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # read when JAX is imported, by whichever test comes first


def pytest_configure(config: pytest.Config) -> None:
    """Makes ``pytest -n`` respect ``xdist_group``: a program is then compiled in one process, not in all."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadgroup"
