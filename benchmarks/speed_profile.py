"""Where our time goes: operations and bytes counted, the core's limits measured, an update taken apart."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import report

EPOCHS = (1, 4, 16)


@dataclass(frozen=True)
class Limits:
    """What one core can do, measured.

    Attributes:
        peak: floating-point operations a second, 1024×1024 matrices.
        small: the same at the sizes of a gradient step: 64×64 by 64×minibatch, of lanes in lockstep.
        tanh: hyperbolic tangents a second.
        copy: bytes read and written a second, arrays of a gradient step's working set.
    """

    peak: float
    small: float
    tanh: float
    copy: float


@dataclass(frozen=True)
class Counts:
    """Arithmetic and traffic of one configuration.

    Attributes:
        rollout_flops: floating-point operations of an environment step while collecting.
        gradient_flops: of one gradient step.
        step_flops: of an environment step, gradient steps included.
        tanhs: hyperbolic tangents of a gradient step.
        parameters: numbers, actor and critic.
        parameter_bytes: moved in a gradient step for parameters, gradients and Adam's moments.
        activation_bytes: moved in a gradient step for the minibatch and activations, forward and backward.
        resident: bytes that stay between gradient steps: parameters, moments, rollout.
    """

    rollout_flops: int
    gradient_flops: int
    step_flops: float
    tanhs: int
    parameters: int
    parameter_bytes: int
    activation_bytes: int
    resident: int


def profile(args: argparse.Namespace) -> None:
    """Measures on one core and writes ``profile.md``."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from speed_hyperlax import configuration, prepare

    versions = prepare()
    parts = [
        report.heading(
            "Where the time of PPO goes, one core",
            versions=versions,
            work="8 environments × 128 steps, 4 epochs × 4 minibatches, actor and critic of 2×64 tanh",
            counted="two operations a multiply-add; backward takes twice forward; in a rollout the actor and the "
            "critic see every observation once",
        )
    ]
    for configurations in args.configurations or [1, 16, 64]:
        for environment in args.environments:
            updates = max(2, args.total_steps // 10 // configurations // configuration("ppo").steps_per_update)
            taken = {epochs: update_seconds(environment, configurations, epochs, updates) for epochs in EPOCHS}
            (lanes, group), *_ = {(lanes, group) for _, lanes, group in taken.values()}
            limits = measure_limits(group, configuration("ppo").batch_size)
            parts.append(f"## {environment.capitalize()}, {lanes} configurations at once, {group} in lockstep\n")
            parts.append(describe({e: t[0] for e, t in taken.items()}, count(environment), limits, lanes))
            print(parts[-1], flush=True)
    report.write(args.output / "profile.md", "\n".join(parts))


# --- measured ------------------------------------------------------------------------------------


def update_seconds(environment: str, configurations: int, epochs: int, updates: int) -> tuple[float, int, int]:
    """Returns the time of one update with so many epochs, and the lanes that did it: in all, in lockstep."""
    from speed_hyperlax import Trainer, configuration

    trainer = Trainer(environment, configurations, configuration("ppo", epochs=epochs))
    lanes, busy = trainer.start()
    lanes, _ = trainer.program.tick(lanes, busy * 1)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        lanes, _ = trainer.program.tick(lanes, busy * updates)
        times.append((time.perf_counter() - started) / updates)
    return median(times), int(busy.sum()), trainer.program.group


def measure_limits(configurations: int, batch: int) -> Limits:
    """Measures a core with the shapes that matter."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((1024, 1024))
    weights, columns = jnp.ones((configurations, 64, 64)), jnp.ones((configurations, 64, batch))
    product = jax.jit(lambda a, b: a @ b)
    return Limits(
        peak=2 * 1024**3 / _seconds(product, square, square),
        small=2 * 64 * 64 * batch * configurations / _seconds(product, weights, columns),
        tanh=columns.size / _seconds(jax.jit(jnp.tanh), columns),
        copy=2 * columns.nbytes / _seconds(jax.jit(lambda x: x + 1.0), columns),
    )


def _seconds(function: Callable[..., Any], *inputs: Any) -> float:
    """Returns the least time of one call, among batches of calls that last about a tenth of a second."""
    import jax

    def batch(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(function(*inputs))
        return (time.perf_counter() - started) / calls

    batch(2)
    calls = max(1, int(0.1 / batch(5)))
    return min(batch(calls) for _ in range(7))


# --- counted -------------------------------------------------------------------------------------


def count(environment: str) -> Counts:
    """Counts the operations and bytes of one configuration."""
    from speed_hyperlax import configuration

    hp = configuration("ppo")

    from hyperlax.algorithms.ppo import PPOAgent
    from hyperlax.environments import make

    env = make(f"gymnax.{environment}")
    shape = hp.shape(env)
    outputs = shape.role("actor").num_outputs
    rollout, gradient = shape.flops()
    size = shape.num_params()
    widths = sum(role.networks.num_units() for role in shape.roles)
    agent = PPOAgent(env, shape)
    return Counts(
        rollout_flops=rollout,
        gradient_flops=hp.batch_size * gradient,
        step_flops=rollout + hp.epochs * gradient,
        tanhs=hp.batch_size * widths,
        parameters=size,
        # read forward and backward; gradient written, read for its norm and by Adam; moments and parameters
        # read and written
        parameter_bytes=4 * size * (2 + 3 + 4 + 2),
        # rows gathered; activations written, read by the next layer and backward; their gradients written and read
        activation_bytes=4 * hp.batch_size * (3 * agent.batch.width + 5 * (widths + outputs + 1)),
        resident=4 * (3 * size + hp.steps_per_update * agent.batch.width),
    )


# --- reported ------------------------------------------------------------------------------------


def describe(seconds: dict[int, float], counts: Counts, limits: Limits, configurations: int) -> str:
    """Returns the analysis of one number of configurations as Markdown."""
    from speed_hyperlax import configuration

    hp = configuration("ppo")

    epoch = (seconds[EPOCHS[2]] - seconds[EPOCHS[1]]) / (EPOCHS[2] - EPOCHS[1])
    gradient = epoch / hp.num_minibatches / configurations
    rest = max(0.0, seconds[4] - 4 * epoch) / configurations
    rate = configurations * hp.steps_per_update / seconds[4]
    bound = counts.gradient_flops / limits.small + counts.tanhs / limits.tanh
    rows = [
        ("steps/s", f"{rate:,.0f}"),
        ("operations per environment step", f"{counts.step_flops:,.0f}, {counts.rollout_flops:,} of them collecting"),
        ("achieved", f"{rate * counts.step_flops / 1e9:.1f} GFLOP/s"),
        ("peak of the core (1024×1024, float32)", f"{limits.peak / 1e9:.1f} GFLOP/s"),
        ("share of the peak", f"{rate * counts.step_flops / limits.peak:.0%}"),
        ("share of the peak, gradient steps alone", f"{counts.gradient_flops / gradient / limits.peak:.0%}"),
        ("matrices of a gradient step alone", f"{limits.small / 1e9:.1f} GFLOP/s"),
        ("tanh alone", f"{limits.tanh / 1e9:.2f} billion/s"),
        ("bytes moved in a gradient step", f"{counts.parameter_bytes / 1e3:,.0f} kB for {counts.parameters:,} "
         f"parameters, {counts.activation_bytes / 1e3:,.0f} kB for activations"),
        ("operations per byte", f"{counts.gradient_flops / (counts.parameter_bytes + counts.activation_bytes):.1f}"),
        ("bytes kept by all configurations", f"{configurations * counts.resident / 2**20:.1f} MiB"),
        ("copying, arrays of that step's size", f"{limits.copy / 1e9:.1f} GB/s"),
    ]  # fmt: skip
    bytes_time = (counts.parameter_bytes + counts.activation_bytes) / limits.copy
    times = [
        ("measured", gradient),
        ("its matrix products at the core's peak", counts.gradient_flops / limits.peak),
        ("its matrix products at the rate of their own sizes", counts.gradient_flops / limits.small),
        ("its tanh, forward", counts.tanhs / limits.tanh),
        ("its bytes, were they all copied", bytes_time),
        ("products and tanh together: the limit of this program", bound),
    ]
    update = [(f"{e} epochs", s) for e, s in seconds.items()]
    update += [
        ("one epoch, from 16 less 4", epoch),
        ("collecting, advantages, shuffling: the rest", rest * configurations),
    ]
    return "\n".join(
        [
            report.table(["", "value"], rows),
            report.table(["an update of all configurations", "ms"], [(n, f"{1e3 * s:.2f}") for n, s in update]),
            report.table(
                ["a gradient step of one configuration", "µs", "share of measured"],
                [(n, f"{1e6 * s:.1f}", f"{s / gradient:.0%}") for n, s in times],
            ),
            f"Collecting and the rest take {rest * configurations / seconds[4]:.0%} of an update at 4 epochs.\n",
        ]
    )
