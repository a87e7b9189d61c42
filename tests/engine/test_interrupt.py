"""Signals while lanes train: what is saved before whom they are passed on to."""

from __future__ import annotations

import signal

import pytest

from hyperlax.engine.interrupt import stoppable


@pytest.fixture
def handled():
    """Signals that handlers of another program were given; that of SIGUSR2 ends the process, like submitit's."""
    came = []

    def leave(number, frame):
        came.append(number)
        raise SystemExit(-1)

    before = {
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, leave),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: came.append(number)),
    }
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_handler_of_sigusr2_is_called_when_all_is_saved(handled):
    with pytest.raises(SystemExit), stoppable() as stop:
        signal.raise_signal(signal.SIGUSR2)
        handled.append("saved")
    assert stop.requested and handled == ["saved", signal.SIGUSR2]
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGUSR2)


def test_without_a_handler_sigusr2_is_not_ours():
    before = signal.getsignal(signal.SIGUSR2)
    with stoppable():
        assert signal.getsignal(signal.SIGUSR2) == before


def test_a_job_that_slurm_preempts_or_ends_is_queued_again(handled):
    with pytest.raises(SystemExit), stoppable() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR2)
        handled.append("saved")
    assert stop.requested and handled == ["saved", signal.SIGTERM, signal.SIGUSR2]
    handled.clear()
    with pytest.raises(SystemExit), stoppable():
        signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)  # the time is over, and the tick is not
    assert handled == [signal.SIGUSR2]


def test_a_handler_that_fails_is_no_failure_of_lanes(handled):
    def fail(number, frame):
        raise OSError("no scontrol")

    signal.signal(signal.SIGUSR2, fail)
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGUSR2)
