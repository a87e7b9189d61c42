"""How fast the machines are that the planner plans for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Speeds of one kind of device, measured; times in seconds.

    Attributes:
        compile: one program, with tracing.
        alternative: what another alternative of a network adds to it.
        launch: of one iteration of an inner loop, whatever the number of lanes.
        lane: of one iteration, for each lane.
        param: of an optimiser step, for each parameter, when a group's state fits the cache.
        param_uncached: likewise when it does not.
        cache: bytes; a parameter takes some 28 with optimiser state, gradient and copies.
        flops: floating-point operations a second within networks.
        alone: factor on it for a group of one lane, whose products are not batched.
        transition: all that is done for one environment step besides the network and the environment.
        operation: one primitive operation of one copy of an environment.
        row: what an update does for each row of a rollout, padding included: buffers, sorting, statistics.
        groups: candidates for the number of lanes that run in lockstep; 0 stands for all of a device.
        max_lanes: more lanes on a device do not help any more.
    """

    compile: float
    alternative: float
    launch: float
    lane: float
    param: float
    param_uncached: float
    cache: float
    flops: float
    alone: float
    transition: float
    operation: float
    row: float
    groups: tuple[int, ...]
    max_lanes: int


MACHINES = {
    # One core of an AMD EPYC (AVX-512), measured: benchmark_results/speed.
    "cpu": Machine(
        compile=6.0,
        alternative=0.7,
        launch=12.5e-6,
        lane=4.6e-6,
        param=1.8e-9,
        param_uncached=2.8e-9,
        cache=3e6,
        flops=55e9,
        alone=0.95,
        transition=250e-9,
        operation=0.55e-9,
        row=250e-9,
        groups=(1, 2, 4, 8),
        max_lanes=64,
    ),
    # Estimated, not measured.
    "gpu": Machine(
        compile=20.0,
        alternative=3.0,
        launch=400e-6,
        lane=0.1e-6,
        param=5e-12,
        param_uncached=5e-12,
        cache=1e15,
        flops=5e12,
        alone=1.0,
        transition=0.1e-9,
        operation=2e-12,
        row=50e-12,
        groups=(0,),
        max_lanes=4096,
    ),
}
