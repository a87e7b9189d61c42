"""How far lanes go in a round, whatever they cost."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hyperlax.engine.program import Task
from hyperlax.engine.scheduler import Scheduler, Slot

INTERVAL, POINTS = 100, 4


def scheduler(num_devices, group, costs):
    program = SimpleNamespace(group=group, num_devices=num_devices)
    return Scheduler(program, 0, *[None] * 4, cost=lambda task: costs[task.sample_id])


def slots_of(costs, intervals=None):
    intervals = intervals or [INTERVAL] * len(costs)
    return [Slot(Task(i, 0, None), [n * (k + 1) for k in range(POINTS)]) for i, n in enumerate(intervals)]


def played(costs, num_devices, group=1, intervals=None):
    """Runs all rounds; returns the seconds of each device by round, and when each slot passed its points."""
    run, slots = scheduler(num_devices, group, costs), slots_of(costs, intervals)
    each, rounds, passed = len(slots) // num_devices, [], {i: [] for i in range(len(slots))}
    while any(slots):
        run._aim(slots)
        seconds = [0.0] * num_devices
        for first in range(0, len(slots), group):
            ways = [(s.target - s.updates) * costs[s.task.sample_id] for s in slots[first : first + group] if s]
            seconds[first // each] += max(ways, default=0.0)
        assert max(seconds) > 0
        rounds.append(seconds)
        for lane, slot in enumerate(slots):
            if slot is None:
                continue
            slot.updates = slot.target
            if slot.remaining <= 0:
                slot.passed += 1
                slot.turn = 1 + max(s.turn for s in slots if s is not None)
                passed[lane].append(len(rounds))
            if slot.passed == POINTS:
                slots[lane] = None
    return np.array(rounds), passed


def test_no_device_waits_for_another_while_both_have_something_to_do():
    costs = [9.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]  # 14 on the first device, 4 on the second
    rounds, _ = played(costs, num_devices=2)
    both = rounds[: np.flatnonzero(rounds[:, 1])[-1]]
    waited = np.abs(both[:, 0] - both[:, 1]) / both.max(axis=1)
    assert np.median(waited) < 0.02 and waited.mean() < 0.1
    assert rounds.sum() == pytest.approx(INTERVAL * POINTS * sum(costs), rel=1e-6)


def test_lanes_that_cost_the_same_are_evaluated_together():
    _, passed = played([2.0] * 6, num_devices=3)
    assert all(points == [1, 2, 3, 4] for points in passed.values())


def test_a_dear_lane_is_not_overtaken_for_ever():
    costs = [50.0, 1.0, 1.0, 1.0]
    _, passed = played(costs, num_devices=2)
    assert [len(points) for points in passed.values()] == [POINTS] * 4
    _, passed = played(costs, num_devices=2, intervals=[1, 100, 100, 100])  # a single update
    assert passed[0][0] <= 2


def test_lanes_in_lockstep_go_a_share_of_the_longest_way():
    _, passed = played([1.0] * 4, num_devices=1, group=2, intervals=[80, 40, 80, 80])
    assert passed[0] == [8, 16, 24, 32] and passed[1] == [4, 8, 12, 16]


def test_a_lane_that_is_held_does_nothing():
    run, slots = scheduler(1, 1, [1.0, 1.0]), slots_of([1.0, 1.0])
    run._hold(slots, {slots[0].task})
    run._aim(slots)
    assert [slot.target for slot in slots] == [0, INTERVAL]
