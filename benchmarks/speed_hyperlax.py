"""Our side of the speed comparison: one program of alike lanes, planned as a sweep would, without a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import worker

from hyperlax.algorithms import ALGORITHMS
from hyperlax.engine import devices
from hyperlax.engine.machine import MACHINES
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Program, Task
from hyperlax.environments import make
from hyperlax.networks.mlp import MLP

# The work that both sides do: see also peer_rejax.py.
ON_POLICY = {"rollout_length": 128, "total_num_envs": 8, "epochs": 4, "num_minibatches": 4}
REPLAY = {
    "rollout_length": 1,
    "total_num_envs": 8,
    "epochs": 8,
    "total_batch_size": 128,
    "total_buffer_size": 10_000,
    "warmup_rollout_length": 32,
}
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "ppo": {**ON_POLICY, "normalize_observations": True, "decay_learning_rates": False},
    "pqn": ON_POLICY,
    "dqn": {**REPLAY, "critic_network": MLP((64, 64), "relu", False), "decay_learning_rates": False},
    "sac": REPLAY,
}


def configuration(algorithm: str, **changes: object) -> Any:
    """Returns the hyperparameters of the work, with changes."""
    return ALGORITHMS[algorithm](**{**CONFIGURATIONS[algorithm], **changes})


class TrainingOnly(Program):
    """A program that compiles no evaluation."""

    def _evaluate(self, keys: Any, hyperparams: Any, policy: Any, wanted: Any, point: Any) -> Any:
        nothing = jnp.zeros(self.num_eval_episodes)
        return nothing, nothing


def tasks(configurations: int, hyperparams: Any) -> list[Task]:
    """Returns so many configurations that differ in their learning rates."""
    names = [f.name for f in fields(hyperparams) if f.name.endswith("_lr")]
    rates = np.geomspace(1e-4, 1e-3, configurations)
    return [Task(i, 0, replace(hyperparams, **dict.fromkeys(names, float(r)))) for i, r in enumerate(rates)]


class Trainer:
    """One compiled program with the lanes that the planner gives so many alike configurations.

    Args:
        environment: a gymnax name.
        configurations: to be trained.
        hyperparams: of all of them, but for the learning rates; see :func:`configuration`.
        steps: environment steps of each.
        evaluation: whether to compile it.
    """

    def __init__(
        self,
        environment: str,
        configurations: int,
        hyperparams: Any,
        *,
        steps: int = 1_000_000,
        evaluation: bool = False,
    ) -> None:
        env = make(f"gymnax.{environment}")
        mesh = devices.local_mesh(min(configurations, devices.local_mesh().size))
        machine = MACHINES["cpu" if mesh.devices.flat[0].platform == "cpu" else "gpu"]
        planner = Planner(env, steps, mesh.size, machine, int(0.8 * devices.memory(mesh).free))
        (planned,) = planner.batched(tasks(configurations, hyperparams)).programs
        self.tasks = planned.tasks
        kind = Program if evaluation else TrainingOnly
        self.program = kind(
            hyperparams,
            env,
            planned.shape,
            num_lanes=planned.num_lanes,
            group=planned.group,
            total_timesteps=steps,
            num_eval_episodes=128,
            run_seed=0,
            mesh=mesh,
        )
        self.program.compile()

    def start(self, wave: int = 0, lanes: Any = None) -> tuple[Any, np.ndarray]:
        """Starts as many configurations as there are lanes; returns the lanes, and which of them do something."""
        each = self.program.num_lanes
        some = self.tasks[wave * each : (wave + 1) * each]
        busy = np.array([task is not None for task in some] + [False] * (each - len(some)))
        filler = next(task for task in some if task is not None)
        filled = [task or filler for task in some] + [filler] * (each - len(some))
        return self.program.admit(self.program.empty() if lanes is None else lanes, filled), busy

    def train(self, updates: int) -> None:
        """Trains all configurations from their start, one wave of lanes after the other."""
        lanes = None
        for wave in range(-(-len(self.tasks) // self.program.num_lanes)):
            lanes, busy = self.start(wave, lanes)
            lanes, _ = self.program.tick(lanes, busy * updates)  # reading the metrics waits for the device


def prepare() -> dict[str, str]:
    """Makes every core a device, imports what environments need, starts the backend and returns versions."""
    devices.configure(cache=False)
    devices.local_mesh()
    import gymnax  # which would start the backend itself, with one device
    import report

    assert gymnax.make
    return report.our_versions()


def build(job: worker.Job) -> Callable[[], None]:
    """Compiles a job; training starts with the initialisation of networks and environments."""
    trainer = Trainer(
        job.environment,
        job.configurations,
        configuration(job.algorithm),
        steps=job.steps,
        evaluation=job.evaluation,
    )
    return lambda: trainer.train(job.updates)


if __name__ == "__main__":
    worker.serve(prepare, build)
