"""Runs as the engine leaves them, made of formulas instead of training."""

from __future__ import annotations

import pytest

from hyperlax.results import RunWriter, load_run
from hyperlax.spaces.files import Sample


def _write_run(folder, configurations, final, seeds=(0, 1), evaluations=4, ends=None, lanes=4, **info):
    """Returns a run: returns rise to ``final(values)`` evenly, a thousand steps and a second an evaluation.

    ``ends`` says of samples how and after how many evaluations they end, all others complete; None is no end at all.
    Samples take the lanes in turn, seed by seed, each when the one before has ended.
    """
    ends, free = ends or {}, [0.0] * lanes
    known = {"algorithm": "ppo", "network": "mlp", "recipe": "ppo_mlp", "environment": "gymnax.cartpole"}
    length = {"budget_steps": 1000 * evaluations, "versions": {"jax": "1"}, "command": "hyperlax <sweep> & more"}
    samples = [Sample(number, values) for number, values in enumerate(configurations)]
    with RunWriter(folder, {**known, **length, **info}, samples, seeds) as writer:
        for sample in samples:
            status, count = ends.get(sample.sample_id, ("COMPLETED", evaluations))
            for seed in seeds:
                key, lane = {"sample_id": sample.sample_id, "seed": seed}, free.index(min(free))
                start, top = free[lane], final(sample.values)
                writer.evaluations(
                    [
                        {**key, "grid_step": 1000 * k, "env_steps": 1000 * k, "wall_seconds": start + k}
                        | {"mean_return": top * k / evaluations}
                        for k in range(1, count + 1)
                    ]
                )
                free[lane] = start + max(count, 0.5)
                if status is not None:
                    writer.lane_finished(
                        **key, status=status, env_steps=1000 * count, num_params=9, program=0, lane=lane,
                        wall_seconds_start=start, wall_seconds_end=free[lane],
                    )  # fmt: skip
    return load_run(folder)


@pytest.fixture(scope="session")
def write_run():
    return _write_run
