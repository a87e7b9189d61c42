"""The laws that every algorithm, network family and kind of environment must obey (CONTRIBUTING.md).

Every test runs for every line of ``CASES``. A new algorithm adds a line there and one to
``ALGORITHMS``, a new network family one to ``NETWORKS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.algorithms.lane import LANES
from hyperlax.algorithms.ppo import PPO
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.program import Program, Task
from hyperlax.environments import make, vector
from hyperlax.networks.mlp import ACTIVATIONS, MLP
from hyperlax.networks.padding import pad

TOTAL_TIMESTEPS, TICKS = 250, (1, 3)


# --- random hyperparameters ------------------------------------------------------------------------


def random_mlp(rng):
    """Layer norm over two units is a step function, which turns rounding errors into others: at least four."""
    use_layer_norm = bool(rng.random() < 0.5)
    sizes = rng.integers(4 if use_layer_norm else 1, 8, size=rng.integers(0, 4))
    return MLP(tuple(int(n) for n in sizes), str(rng.choice(list(ACTIVATIONS))), use_layer_norm)


def largest_mlp():
    return MLP((8, 9, 3, 5), "relu", True)


def random_ppo(rng, network):
    envs, length = int(rng.integers(1, 6)), int(rng.integers(2, 8))
    divisors = [n for n in range(1, envs * length + 1) if envs * length % n == 0 and envs * length // n <= 12]
    flag = lambda: bool(rng.random() < 0.5)  # noqa: E731
    return PPO(
        actor_network=network(rng),
        critic_network=network(rng),
        actor_lr=rng.uniform(1e-4, 3e-3),
        critic_lr=rng.uniform(1e-4, 3e-3),
        gamma=rng.uniform(0.8, 1),
        gae_lambda=rng.uniform(0.5, 1),
        clip_eps=rng.uniform(0.02, 0.3),
        ent_coef=rng.uniform(0, 0.1),
        vf_coef=rng.uniform(0.1, 1),
        max_grad_norm=rng.uniform(0.1, 2),
        rollout_length=length,
        epochs=int(rng.integers(1, 4)),
        num_minibatches=int(rng.choice(divisors)),
        total_num_envs=envs,
        standardize_advantages=flag(),
        decay_learning_rates=flag(),
        normalize_observations=flag(),
        normalize_rewards=flag(),
    )


def largest_ppo(network):
    return PPO(network, network, rollout_length=9, total_num_envs=7, num_minibatches=1, epochs=5)


# --- what of a state belongs to the lane, and what is padding --------------------------------------


class Parts(NamedTuple):
    """A state's own part, and the parts that are padding, as flat lists of arrays."""

    own: Any
    padded_params: list[np.ndarray]


def ppo_masks(agent, hyperparams):
    """Which entries of the parameter vectors are the lane's own: those of its network at exact size."""
    masks = {}
    for name, networks in (("actor", agent.actor), ("critic", agent.critic)):
        family = getattr(hyperparams, f"{name}_network")
        member = networks.members[networks.shape.index(family)]
        exact = member.network.exact(family).abstract_params
        inside = pad(jax.tree.map(lambda x: np.ones(x.shape, bool), exact), member.network.abstract_params)
        mask = member.vector.pack({"free": np.ones(networks.num_free), "network": inside}) > 0
        masks[name] = np.pad(mask, (0, networks.size - mask.size))
    return masks


def ppo_parts(agent, state, hyperparams):
    masks, n = ppo_masks(agent, hyperparams), hyperparams.total_num_envs
    own, padding = {}, []
    for name, mask in masks.items():
        leaves = [state.params[name], *jax.tree.leaves(state.optimizer[name])]
        own[name] = [leaf[mask] if leaf.shape == mask.shape else leaf for leaf in leaves]
        padding += [leaf[~mask] for leaf in leaves if leaf.shape == mask.shape]
    per_env = (state.env_states, state.observation, state.discounted, state.episode_return)
    envs = jax.tree.map(lambda x: x[:n], per_env)
    return Parts((own, envs, state.statistics, state.updates), padding)


def ppo_poisoned(agent, state, hyperparams):
    """The state with all its padding overwritten: environments by NaN, parameters by large numbers."""
    masks, n = ppo_masks(agent, hyperparams), hyperparams.total_num_envs
    rng = np.random.default_rng(0)

    def poison(x):
        x = np.array(x)
        if np.issubdtype(x.dtype, np.floating):
            x[n:] = np.nan
        return x

    noise = {name: np.where(mask, 0, 1e3 * rng.normal(size=mask.shape)) for name, mask in masks.items()}
    return state._replace(
        params={name: (state.params[name] + noise[name]).astype(np.float32) for name in masks},
        env_states=jax.tree.map(poison, state.env_states),
        observation=poison(state.observation),
        discounted=poison(state.discounted),
        episode_return=poison(state.episode_return),
    )


class Algorithm(NamedTuple):
    """What the tests must know of an algorithm.

    Attributes:
        draw: random hyperparameters ``(rng, draw of a network)``.
        largest: hyperparameters ``(network)`` whose shape exceeds all random ones.
        parts: splits a lane's state ``(agent, state, hyperparams)`` into :class:`Parts`.
        poisoned: a state ``(agent, state, hyperparams)`` whose padding is overwritten.
        explode: the change of hyperparameters that makes a lane non-finite.
    """

    draw: Any
    largest: Any
    parts: Any
    poisoned: Any
    explode: dict[str, Any]


class Family(NamedTuple):
    """Random networks of a family, and one whose shape exceeds all random ones."""

    draw: Any
    largest: Any


@dataclass(frozen=True)
class Case:
    """A combination to be tested; ``seed`` draws its hyperparameters, such that every one of them differs."""

    algorithm: str
    network: str
    environment: str
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


ALGORITHMS = {"ppo": Algorithm(random_ppo, largest_ppo, ppo_parts, ppo_poisoned, {"actor_lr": 3e38, "critic_lr": 3e38})}
NETWORKS = {"mlp": Family(random_mlp, largest_mlp)}
CASES = {
    "ppo-mlp-discrete": Case("ppo", "mlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=198),
    "ppo-mlp-continuous": Case("ppo", "mlp", "gymnax.pendulum", (("max_episode_steps", 6),), seed=639),
}


# --- programs --------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What a program did: the host's copy of its lanes, the metrics of each tick, the last evaluation."""

    lanes: Any
    metrics: list[dict[str, np.ndarray]]
    evaluation: tuple[np.ndarray, np.ndarray]


def train(program, tasks, ticks=TICKS, change=None):
    """Runs ``tasks``; ``ticks`` are updates (of all or of each lane), ``change`` edits the lanes at the start."""
    lanes, metrics, n = program.admit(program.empty(), tasks), [], program.num_lanes
    if change is not None:
        edited = change(jax.device_get(lanes))
        lanes = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), edited, lanes)
    for updates in ticks:
        lanes, news = program.tick(lanes, np.broadcast_to(updates, n))
        metrics.append(news)
    evaluation = program.evaluate(lanes, np.ones(n, bool), np.full(n, 1))
    return Result(jax.device_get(lanes), metrics, evaluation)


def merge(shapes, *chunks):
    """Returns a shape that holds all, networks of different sizes side by side, and a choice of chunks."""
    shape = reduce(lambda a, b: a.merge(b), shapes)
    return replace(shape, chunks=chunks) if hasattr(shape, "chunks") else shape


class World:
    """The programs of one case, each compiled when a test first asks for it."""

    def __init__(self, case: Case) -> None:
        self.algorithm, family = ALGORITHMS[case.algorithm], NETWORKS[case.network]
        self.env = make(case.environment, **dict(case.options))
        rng = np.random.default_rng(case.seed)
        samples = [self.algorithm.draw(rng, family.draw) for _ in range(3)]
        self.tasks = [*(Task(i, 0, sample) for i, sample in enumerate(samples)), Task(0, 1, samples[0])]
        self.largest = self.algorithm.largest(family.largest())

    def program(self, shape, num_lanes, devices=1, group=None):
        example = self.tasks[0].hyperparams
        if num_lanes == 1:
            example = next(t.hyperparams for t in self.tasks if t.hyperparams.shape(self.env) == shape)
        program = Program(
            example, self.env, shape, num_lanes=num_lanes, group=group, total_timesteps=TOTAL_TIMESTEPS,
            num_eval_episodes=2, run_seed=7, mesh=local_mesh(devices),
        )  # fmt: skip
        program.compile()
        return program

    @cached_property
    def side_by_side(self):
        """Holds all tasks, each network in arrays of its own size."""
        return merge([task.hyperparams.shape(self.env) for task in self.tasks], 2, 5)

    @cached_property
    def shape(self):
        """Holds all tasks in common arrays; its chunk is smaller than some minibatches and divides few of them."""
        return merge([task.hyperparams.shape(self.env) for task in self.tasks], 4).together()

    @cached_property
    def mixed(self):
        return self.program(self.shape, len(self.tasks))

    @cached_property
    def reference(self):
        return train(self.mixed, self.tasks)

    def state(self, result, lane):
        return jax.tree.map(lambda x: x[lane], result.lanes.state)

    def own(self, program, result, lane, task):
        """Everything about a lane that must not depend on its neighbours or on padding."""
        parts = self.algorithm.parts(program.agent, self.state(result, lane), task.hyperparams)
        metrics = [{name: x[lane] for name, x in tick.items()} for tick in result.metrics]
        return parts.own, metrics, result.lanes.diverged[lane], [x[lane] for x in result.evaluation]


@pytest.fixture(scope="module", params=CASES)
def world(request):
    return World(CASES[request.param])


def assert_close(got, expected, tolerance=1e-5):
    """Every array agrees to ``tolerance`` of its largest entry, or of 1 if that is larger."""
    leaves, others = jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)
    assert len(leaves) == len(others)
    for (path, a), b in zip(leaves, others, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        scale = np.abs(b[np.isfinite(b)]).max(initial=1.0) if b.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def assert_same_bits(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def pick(result, lanes):
    """The given lanes of a result."""
    return jax.tree.map(lambda x: x[np.asarray(lanes)], result)


# --- the laws --------------------------------------------------------------------------------------


def test_every_hyperparameter_differs_between_lanes(world):
    """Otherwise the other tests would say little; another ``seed`` of the case will do."""
    traced = [task.hyperparams.traced(world.shape, TOTAL_TIMESTEPS) for task in world.tasks]
    for (path, first), *others in zip(*map(jax.tree_util.tree_leaves_with_path, traced), strict=True):
        assert any(not np.array_equal(first, other) for _, other in others), jax.tree_util.keystr(path)


def test_alone_equals_batched(world):
    for sample, task in enumerate(world.tasks[:3]):
        alone = world.program(task.hyperparams.shape(world.env), 1)
        expected = world.own(alone, train(alone, [task]), 0, task)
        assert not expected[2] and int(expected[0][-1]) == sum(TICKS)
        assert_close(world.own(world.mixed, world.reference, sample, task), expected)


def test_order_number_and_groups_of_lanes_and_padding_change_nothing(world):
    larger = merge([world.largest.shape(world.env), world.side_by_side], 5).together()
    program = world.program(larger, 6, group=3)
    order = [2, 0, 3, 1, 0, 2]
    result = train(program, [world.tasks[i] for i in order])
    for lane, i in enumerate(order):
        assert_close(
            world.own(program, result, lane, world.tasks[i]),
            world.own(world.mixed, world.reference, i, world.tasks[i]),
        )


@pytest.mark.parametrize("group, order", [(1, [0, 1, 2, 3]), (2, [3, 0, 1, 1, 2, 2])], ids=["alone", "in pairs"])
def test_networks_side_by_side_are_as_good_as_padded_ones(world, group, order):
    """Lanes that share a shape, two by two or one by one, take the branch of their own network."""
    program = world.program(world.side_by_side, len(order), group=group)
    assert world.side_by_side.num_alternatives > world.shape.num_alternatives
    result = train(program, [world.tasks[i] for i in order])
    for lane, i in enumerate(order):
        assert_close(
            world.own(program, result, lane, world.tasks[i]),
            world.own(world.mixed, world.reference, i, world.tasks[i]),
        )
        for leaf in world.algorithm.parts(program.agent, world.state(result, lane), world.tasks[i].hyperparams)[1]:
            np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_two_devices_are_as_good_as_one(world):
    program = world.program(world.shape, 4, devices=2)
    assert_close(train(program, world.tasks), world.reference)


def test_same_seed_same_bits_and_other_seed_other_numbers(world):
    assert_same_bits(train(world.mixed, world.tasks), world.reference)
    first, other = world.state(world.reference, 0), world.state(world.reference, 3)
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(other.params), strict=True):
        assert not np.array_equal(a, b)


def test_padded_parameters_stay_exactly_zero(world):
    padded = 0
    for lane, task in enumerate(world.tasks):
        parts = world.algorithm.parts(world.mixed.agent, world.state(world.reference, lane), task.hyperparams)
        for leaf in parts.padded_params:
            np.testing.assert_array_equal(leaf, 0.0)
            padded += leaf.size
    assert padded > 0


def test_padding_never_speaks(world):
    def poison(lanes):
        states = [jax.tree.map(lambda x, i=i: x[i], lanes.state) for i in range(len(world.tasks))]
        states = [
            world.algorithm.poisoned(world.mixed.agent, state, task.hyperparams)
            for state, task in zip(states, world.tasks, strict=True)
        ]
        return lanes._replace(state=jax.tree.map(lambda *leaves: np.stack(leaves), *states))

    poisoned = train(world.mixed, world.tasks, change=poison)
    for lane, task in enumerate(world.tasks):
        got = world.own(world.mixed, poisoned, lane, task)
        assert_same_bits(got, world.own(world.mixed, world.reference, lane, task))


def test_a_lane_that_does_nothing_keeps_every_bit(world):
    idle = train(world.mixed, world.tasks, ticks=[[1, 1, 0, 1], [3, 3, 0, 3]])
    begun = train(world.mixed, world.tasks, ticks=[])
    assert_same_bits(pick(idle.lanes, [2]), pick(begun.lanes, [2]))
    assert all(np.isnan(tick[name][2]) for tick in idle.metrics for name in tick)
    assert_same_bits(pick(idle, [0, 1, 3]), pick(world.reference, [0, 1, 3]))


def test_a_paused_lane_goes_on_as_if_nothing_had_happened(world):
    paused = train(world.mixed, world.tasks, ticks=[[0, 4, 2, 1], [4, 0, 1, 1], [0, 0, 1, 2]])
    assert_same_bits(paused.lanes._replace(metrics=0), world.reference.lanes._replace(metrics=0))
    assert_same_bits(paused.evaluation, world.reference.evaluation)


def test_an_exploding_lane_dies_alone(world):
    tasks = list(world.tasks)
    tasks[1] = Task(1, 0, replace(tasks[1].hyperparams, **world.algorithm.explode))
    result = train(world.mixed, tasks)
    np.testing.assert_array_equal(result.lanes.diverged, [False, True, False, False])
    assert_same_bits(pick(result, [0, 2, 3]), pick(world.reference, [0, 2, 3]))
    assert result.lanes.state.updates[1] < sum(TICKS)  # it does no more updates


def test_a_lane_whose_environment_returns_nan_dies_alone(world):
    def spoil(lanes):
        def nan(x):
            x = np.array(x)
            if x.dtype.kind == "f":
                x[2] = np.nan
            return x

        return lanes._replace(state=lanes.state._replace(env_states=jax.tree.map(nan, lanes.state.env_states)))

    result = train(world.mixed, world.tasks, change=spoil)
    np.testing.assert_array_equal(result.lanes.diverged, [False, False, True, False])
    assert_same_bits(pick(result, [0, 1, 3]), pick(world.reference, [0, 1, 3]))


def test_a_swapped_in_task_runs_as_from_the_start(world):
    program = world.mixed
    lanes = program.admit(program.empty(), [world.tasks[i] for i in (0, 1, 2, 2)])
    lanes, _ = program.tick(lanes, np.array([4, 2, 4, 3]))
    lanes = program.admit(lanes, [None, None, None, world.tasks[3]])
    lanes, _ = program.tick(lanes, np.array([0, 2, 0, 4]))
    assert_same_bits(jax.device_get(lanes)._replace(metrics=0), world.reference.lanes._replace(metrics=0))


# --- twice the precision ---------------------------------------------------------------------------


class DoubleProgram(Program):
    """A program whose hyperparameters and parameters are float64."""

    def _host_side(self, task):
        widen = lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x  # noqa: E731
        return jax.tree.map(widen, super()._host_side(task))


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_alone_equals_batched_over_dozens_of_updates_in_double_precision(make_spring, discrete):
    env, rng = make_spring(discrete), np.random.default_rng(1374)
    tasks = [Task(i, 0, random_ppo(rng, random_mlp)) for i in range(3)]
    shape = merge([task.hyperparams.shape(env) for task in tasks], 4).together()

    def run(shape, tasks):
        program = DoubleProgram(
            tasks[0].hyperparams, env, shape, num_lanes=len(tasks), total_timesteps=2000, num_eval_episodes=2,
            run_seed=7, mesh=local_mesh(1),
        )  # fmt: skip
        program.compile()
        return program.agent, train(program, tasks, ticks=[10, 30])

    def own(agent, result, lane, task):
        parts = ppo_parts(agent, jax.tree.map(lambda x: x[lane], result.lanes.state), task.hyperparams)
        return parts.own, [[x[lane] for x in tick.values()] for tick in result.metrics]

    with jax.enable_x64(True):
        agent, mixed = run(shape, tasks)
        assert all(x.dtype == np.float64 for x in jax.tree.leaves(mixed.lanes.state.params))
        for lane in (0, 2):
            exact, alone = run(tasks[lane].hyperparams.shape(env), [tasks[lane]])
            assert_close(own(agent, mixed, lane, tasks[lane]), own(exact, alone, 0, tasks[lane]), 1e-9)


# --- randomness ------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_how_many_there_are(world):
    key = jax.random.key(3)
    few, many = vector.draw(world.env, key, 2), vector.draw(world.env, key, 7)
    words = lambda tree: jax.tree.map(  # noqa: E731
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree
    )
    assert_same_bits(jax.tree.map(lambda x: x[:2], words(many)), words(few))


def test_initial_states_do_not_depend_on_how_many_there_are(world):
    few, many = (vector.reset(world.env, jax.random.key(4), n) for n in (2, 7))
    assert_same_bits(jax.tree.map(lambda x: x[:2], many), few)


def test_lanes_is_the_axis_that_agents_are_mapped_over():
    assert jax.vmap(lambda x: jax.lax.psum(x, LANES), axis_name=LANES)(jnp.ones(3)).sum() == 9
