"""One compiled program: a fixed number of lanes of one shape, trained, evaluated and refilled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hyperlax.algorithms import rng
from hyperlax.algorithms.lane import LANES, any_lane, keep, repeat, stream
from hyperlax.engine.devices import AXIS
from hyperlax.environments import vector
from hyperlax.environments.protocol import Environment
from hyperlax.spaces.hyperparameters import flatten

TRAINING, EVALUATION, PARAMETERS = 0, 1, 2  # purposes of a lane's random numbers
# Options of XLA on a CPU, by platform: for code that runs once, and for code that compiles in 60% of the
# time that XLA's own options need, and runs as fast. On a GPU, the same bits every time.
_REPEATABLY: dict[str, str | bool] = {"xla_gpu_deterministic_ops": True}
QUICKLY: dict[str, dict[str, str | bool]] = {"cpu": {"xla_backend_optimization_level": "0"}, "gpu": _REPEATABLY}
WELL: dict[str, dict[str, str | bool]] = {
    "cpu": {
        "xla_backend_optimization_level": "1",
        "xla_llvm_disable_expensive_passes": True,
        # YNNPACK serves products alone. Its reductions keep memory at every call until the program ends, where
        # several devices run it (jaxlib 0.10.2: 100 KiB a gradient step of SAC).
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    },
    "gpu": _REPEATABLY,
}


@dataclass(frozen=True, eq=False)
class Task:
    """One (sample, seed) to be run in some lane.

    Attributes:
        sample_id: of the sample.
        seed: number of the repetition, from 0.
        hyperparams: the algorithm's dataclass.
    """

    sample_id: int
    seed: int
    hyperparams: Any


class Lanes(NamedTuple):
    """The device's side of all lanes: every leaf has a leading axis of lanes.

    Attributes:
        keys: ``(lanes, 2, 2)`` uint32, the lane's PRNG keys for training and for evaluation.
        hyperparams: the algorithm's traced hyperparameters.
        state: the algorithm's state.
        diverged: whether something that is learnt became non-finite; such a lane does no more updates.
        metrics: ``(lanes, 2, metrics)``, sums of training metrics and of their weights.
    """

    keys: Any
    hyperparams: Any
    state: Any
    diverged: Any
    metrics: Any


def entropy(run_seed: int, task: Task, purpose: int) -> list[int]:
    """Returns the integers from which all randomness of one purpose of a task derives."""
    return [run_seed, task.sample_id, task.seed, purpose]


def lane_keys(run_seed: int, task: Task) -> np.ndarray:
    """Returns a task's keys for training and evaluation, ``(2, 2)`` uint32."""
    purposes = (TRAINING, EVALUATION)
    return np.stack([np.random.SeedSequence(entropy(run_seed, task, p)).generate_state(2) for p in purposes])


def _by_itself(function: Any) -> Any:
    """Returns a function of one lane as one of a group of one; not mapped, its branches stay branches."""

    def on_group(*arguments: Any) -> Any:
        results = function(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: jnp.asarray(x)[None], results)

    return on_group


class Program:
    """Lanes of one shape, compiled for one number of lanes on one mesh.

    Args:
        example: hyperparameters of any task that will be admitted.
        env: the environment.
        shape: static maxima, at least as large as every task that will be admitted.
        num_lanes: a multiple of the number of devices.
        group: lanes of a device that run in lockstep, a divisor of its lanes; its groups run one after
            the other, each as long as its own lanes need. All lanes of the device by default.
        total_timesteps: environment steps of every task.
        num_eval_episodes: episodes of one evaluation.
        run_seed: seed of the whole run.
        mesh: one axis of devices.
    """

    def __init__(
        self,
        example: Any,
        env: Environment,
        shape: Any,
        *,
        num_lanes: int,
        group: int | None = None,
        total_timesteps: int,
        num_eval_episodes: int,
        run_seed: int,
        mesh: Mesh,
    ) -> None:
        self.env, self.shape, self.num_lanes, self.mesh = env, shape, num_lanes, mesh
        self.num_devices = mesh.size
        self.total_timesteps, self.num_eval_episodes, self.run_seed = total_timesteps, num_eval_episodes, run_seed
        self.example = example
        self.group = group or num_lanes // mesh.size
        self.agent = example.agent(env, shape)
        self.compile_seconds = 0.0
        self._choices: list[Any] = [None] * num_lanes  # of alternatives, by lane

    # --- for one lane ----------------------------------------------------------------------------

    def _admit(self, lanes: Lanes, fresh: jax.Array, keys: jax.Array, hyperparams: Any, params: Any) -> Lanes:
        state = self.agent.init(rng.wrap(keys[TRAINING]), params, hyperparams)
        return keep(fresh, Lanes(keys, hyperparams, state, jnp.bool_(False), self._no_metrics()), lanes)

    def _no_metrics(self) -> jax.Array:
        return jnp.zeros((2, len(self.agent.metric_names)))

    def _tick(self, lanes: Lanes, updates: jax.Array, restart: jax.Array) -> Lanes:
        key, agent = rng.wrap(lanes.keys[TRAINING]), self.agent

        def update(i: jax.Array, on: jax.Array, carry: Any) -> Any:
            del i
            state, diverged, metrics = carry
            state, news = agent.update(key, state, lanes.hyperparams, on & ~diverged)
            return state, diverged | ~agent.is_finite(state), metrics + jnp.where(on & ~diverged, news, 0.0)

        metrics = jnp.where(restart, self._no_metrics(), lanes.metrics)
        state, diverged, metrics = repeat(updates, update, (lanes.state, lanes.diverged, metrics))
        return lanes._replace(state=state, diverged=diverged, metrics=metrics)

    def _evaluate(
        self, keys: jax.Array, hyperparams: Any, policy: Any, wanted: jax.Array, point: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        env, agent, episodes = self.env, self.agent, self.num_eval_episodes
        key = rng.wrap(keys[EVALUATION])
        step_key = stream(key, 1, point)
        env_states, observation = vector.reset(env, stream(key, 0, point), episodes)
        nothing = jnp.zeros(episodes)

        def going(carry: Any) -> jax.Array:
            return any_lane(~carry[-1].all() & (carry[0] <= env.max_episode_steps))

        def step(carry: Any) -> Any:
            t, env_states, observation, returns, lengths, done = carry
            actions = agent.act(policy, hyperparams, observation.reshape(episodes, -1))
            keys = jax.random.split(jax.random.fold_in(step_key, t), episodes)
            env_states, transition = jax.vmap(env.step)(keys, env_states, actions)
            returns = returns + jnp.where(done, 0.0, transition.reward)
            lengths = lengths + jnp.where(done, 0.0, 1.0)
            done = done | transition.terminated | transition.truncated
            return t + 1, env_states, transition.observation, returns, lengths, done

        done = jnp.broadcast_to(~wanted, episodes)
        carry = (jnp.int32(1), env_states, observation, nothing, nothing, done)
        _, _, _, returns, lengths, _ = jax.lax.while_loop(going, step, carry)
        return returns, lengths

    # --- for all lanes ---------------------------------------------------------------------------

    def _over_lanes(self, function: Any, in_place: bool = False) -> Any:
        """Returns a function of one lane as one of all lanes, a device's groups one after another.

        Args:
            function: of one lane.
            in_place: its result is its first argument, changed: memory for one group at a time is enough.
        """
        spec = PartitionSpec(AXIS)
        groups = self.num_lanes // self.mesh.size // self.group
        lockstep = jax.vmap(function, axis_name=LANES) if self.group > 1 else _by_itself(function)

        def on_device(*arguments: Any) -> Any:
            if groups == 1:
                return lockstep(*arguments)

            def own(everything: Any, i: jax.Array) -> Any:
                first = i * self.group
                return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, self.group), everything)

            def change(i: jax.Array, everything: Any) -> Any:
                put, first = jax.lax.dynamic_update_slice_in_dim, i * self.group
                result = lockstep(*own((everything, *arguments[1:]), i))
                return jax.tree.map(lambda x, new: put(x, new, first, 0), everything, result)

            if in_place:
                return jax.lax.fori_loop(0, groups, change, arguments[0])
            results = jax.lax.map(lambda i: lockstep(*own(arguments, i)), jnp.arange(groups))
            return jax.tree.map(lambda x: x.reshape(groups * self.group, *x.shape[2:]), results)

        return jax.shard_map(on_device, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)

    def compile(self) -> None:
        """Compiles everything that the program does."""
        started = time.perf_counter()
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))

        def over_lanes(tree: Any) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((self.num_lanes, *x.shape), x.dtype, sharding=sharding), tree
            )

        keys, hyperparams, params = self._host_side(Task(0, 0, self.example))
        state = jax.eval_shape(self.agent.init, jax.random.key(0), params, hyperparams)
        lanes = over_lanes(Lanes(keys, hyperparams, state, np.bool_(False), jax.eval_shape(self._no_metrics)))
        self._abstract = lanes
        flag, count = over_lanes(np.bool_(False)), over_lanes(np.int32(0))
        admit = jax.jit(self._over_lanes(self._admit, in_place=True), donate_argnums=0)
        tick = jax.jit(self._over_lanes(self._tick, in_place=True), donate_argnums=0)
        evaluate = jax.jit(self._over_lanes(self._evaluate))
        platform = self.mesh.devices.flat[0].platform
        quickly, well = QUICKLY.get(platform, {}), WELL.get(platform, {})
        self._compiled_admit = admit.lower(lanes, flag, *over_lanes((keys, hyperparams, params))).compile(quickly)
        self._compiled_tick = tick.lower(lanes, count, flag).compile(well)
        self._compiled_evaluate = evaluate.lower(*self._acting(lanes), flag, count).compile(well)
        self.compile_seconds = time.perf_counter() - started

    def memory_bytes(self) -> int:
        """Returns what the compiled program takes on all devices while it trains."""
        analysis: Any = self._compiled_tick.memory_analysis()
        each = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes
        return (each - analysis.alias_size_in_bytes) * self.mesh.size

    def empty(self) -> Lanes:
        """Returns lanes that hold nothing yet; every one must be admitted to before a tick."""
        self._choices = [None] * self.num_lanes
        return jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), self._abstract)

    def like(self) -> Lanes:
        """Returns shapes and types of the lanes' arrays."""
        return self._abstract

    def restore(self, arrays: Sequence[np.ndarray], tasks: Sequence[Task | None]) -> Lanes:
        """Returns lanes as they were.

        Args:
            arrays: the leaves, in the order of the tree.
            tasks: that the lanes were at; None for those that are free.
        """
        self._choices = [None if task is None else self.shape.choice(task.hyperparams) for task in tasks]
        lanes = jax.tree.unflatten(jax.tree.structure(self._abstract), arrays)
        return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), lanes, self._abstract)

    def _host_side(self, task: Task) -> tuple[np.ndarray, Any, Any]:
        hyperparams = task.hyperparams.traced(self.shape, self.total_timesteps)
        params = self.agent.init_params(entropy(self.run_seed, task, PARAMETERS), task.hyperparams)
        return lane_keys(self.run_seed, task), hyperparams, params

    def admit(self, lanes: Lanes, tasks: Sequence[Task | None]) -> Lanes:
        """Starts ``tasks[i]`` in lane ``i``; where it is None the lane goes on with what it has.

        Raises:
            ValueError: lanes in lockstep would need different alternatives of the shape.
        """
        self._check_lockstep(tasks)
        filler = self._host_side(next(task for task in tasks if task is not None))
        rows = [self._host_side(task) if task is not None else filler for task in tasks]
        fresh = np.array([task is not None for task in tasks])
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        return self._compiled_admit(lanes, *self._put((fresh, *stacked)))

    def _check_lockstep(self, tasks: Sequence[Task | None]) -> None:
        for lane, task in enumerate(tasks):
            if task is not None:
                self._choices[lane] = self.shape.choice(task.hyperparams)
        for first in range(0, self.num_lanes, self.group):
            choices = set(self._choices[first : first + self.group]) - {None}
            if len(choices) > 1:
                raise ValueError(f"lanes {first} … {first + self.group - 1} run in lockstep with {sorted(choices)}")

    def copy(self, lanes: Lanes, sources: np.ndarray, tasks: Sequence[Task | None]) -> Lanes:
        """Gives lanes with a task the state of their source, as it was before, and the task's hyperparameters.

        Their keys stay what they are, so that a copy draws other random numbers than its source.

        Args:
            lanes: the lanes, which are there twice for a moment.
            sources: ``(lanes,)`` int, of each lane; its own number where there is no task.
            tasks: what lanes go on with, None where they go on with what they have.
        """
        self._choices = [self._choices[source] for source in sources]
        filler = next(task for task in tasks if task is not None)
        own = [(task or filler).hyperparams.traced(self.shape, self.total_timesteps) for task in tasks]
        hyperparams = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
        fresh = np.array([task is not None for task in tasks])

        def moved(leaf: jax.Array) -> jax.Array:
            # Through the host: devices would gather a whole leaf each to exchange a few lanes.
            return jax.device_put(np.asarray(leaf)[sources], leaf.sharding)

        def chosen(new: np.ndarray, old: jax.Array) -> jax.Array:
            mask = fresh.reshape(-1, *[1] * (new.ndim - 1))
            return jax.device_put(np.where(mask, new, np.asarray(old)).astype(old.dtype), old.sharding)

        kept = lanes._replace(keys=None, hyperparams=None)
        changed = jax.tree.map(chosen, hyperparams, lanes.hyperparams)
        return jax.tree.map(moved, kept)._replace(keys=lanes.keys, hyperparams=changed)

    def tick(
        self, lanes: Lanes, updates: np.ndarray, restart: np.ndarray | None = None
    ) -> tuple[Lanes, dict[str, np.ndarray]]:
        """Does ``updates[i]`` updates in lane ``i``; returns mean training metrics, each ``(lanes,)``.

        Args:
            lanes: the lanes.
            updates: ``(lanes,)``.
            restart: ``(lanes,)`` bool, whose means begin anew; those of the others go on from the ticks
                before. All of them by default. A metric of which there was nothing to average (no
                episode ended) is NaN.
        """
        restart = np.ones(self.num_lanes, bool) if restart is None else restart
        lanes = self._compiled_tick(lanes, *self._put((updates.astype(np.int32), restart)))
        sums, weights = np.moveaxis(jax.device_get(lanes.metrics), 0, -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return lanes, dict(zip(self.agent.metric_names, sums / weights, strict=True))

    def evaluate(self, lanes: Lanes, wanted: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Plays greedy episodes in the wanted lanes; returns returns and lengths ``(lanes, episodes)``.

        Args:
            lanes: the lanes.
            wanted: ``(lanes,)`` bool; the rows of other lanes mean nothing.
            points: ``(lanes,)``, index of the evaluation, from which its randomness derives.
        """
        arguments = self._put((wanted, points.astype(np.int32)))
        return jax.device_get(self._compiled_evaluate(*self._acting(lanes), *arguments))

    def _acting(self, lanes: Lanes) -> tuple[Any, Any, Any]:
        """Returns what evaluation needs of lanes, which does not include their replay."""
        return lanes.keys, lanes.hyperparams, self.agent.policy(lanes.state)

    def policies(self, lanes: Lanes) -> Any:
        """Returns the policies of all lanes on the host."""
        return jax.device_get(self.agent.policy(lanes.state))

    def export(self, policies: Any, lane: int, task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns one lane's policy as flat arrays at exact size, and the hyperparameters to use it with."""
        policy = jax.tree.map(lambda leaf: leaf[lane], policies)
        arrays = self.agent.export(policy, task.hyperparams)
        return arrays, {"environment": self.env.name, "hyperparameters": flatten(task.hyperparams)}

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(AXIS)))
