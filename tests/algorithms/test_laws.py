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

from hyperlax.algorithms.dqn import DQN
from hyperlax.algorithms.ppo import PPO
from hyperlax.algorithms.pqn import PQN
from hyperlax.algorithms.sac import SAC
from hyperlax.engine import program as program_module
from hyperlax.engine.devices import local_mesh
from hyperlax.engine.program import Program, Task
from hyperlax.environments import make, vector
from hyperlax.networks.cnn import CNN
from hyperlax.networks.mlp import ACTIVATIONS, MLP
from hyperlax.networks.padding import pad
from hyperlax.networks.pqc import CircuitFamily
from hyperlax.networks.tmlp import TMLP
from hyperlax.quantum.circuit import ENTANGLERS, Builder
from hyperlax.spaces import Fixed, hyperparameter

TOTAL_TIMESTEPS, TICKS = 250, (1, 3)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Unoptimised code obeys the same laws, and compiles in a part of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_module, "WELL", program_module.QUICKLY)
        yield


# --- random hyperparameters ------------------------------------------------------------------------


def random_mlp(rng):
    """Layer norm over two units is a step function, which turns rounding errors into others: at least four."""
    use_layer_norm = bool(rng.random() < 0.5)
    sizes = rng.integers(4 if use_layer_norm else 1, 8, size=rng.integers(0, 4))
    return MLP(tuple(int(n) for n in sizes), str(rng.choice(list(ACTIVATIONS))), use_layer_norm)


def largest_mlp():
    return MLP((8, 9, 3, 5), "relu", True)


def random_tmlp(rng):
    """Different sizes, numbers of cores and bonds; layer norm as above."""
    hidden, cores = [(8, 3), (8, 2), (12, 3), (6, 2), (4, 1)][rng.integers(5)]
    bond = 1 if cores == 1 else int(rng.integers(1, 5))
    layers = int(rng.integers(0, 3))
    return TMLP(hidden, cores, bond, layers, str(rng.choice(list(ACTIVATIONS))), bool(rng.random() < 0.5))


def largest_tmlp():
    return TMLP(30, 3, 5, 3, "relu", True)


def random_cnn(rng):
    """Layer norm takes the bias of a single channel away, whose gradient is then rounding: at least two."""
    use_layer_norm = bool(rng.random() < 0.5)
    sizes = tuple(int(n) for n in rng.integers(4, 8, size=rng.integers(0, 2)))
    channels = tuple(int(n) for n in rng.integers(1 + use_layer_norm, 4, size=2))
    return CNN(channels, 3, sizes, str(rng.choice(list(ACTIVATIONS))), use_layer_norm)


def largest_cnn():
    return CNN((4, 5), 3, (9, 8), "relu", True)


@dataclass(frozen=True)
class AnyPQC(CircuitFamily):
    """A circuit of one's own, with every kind of gate, angle and Pauli word in any order.

    It begins and ends with turns that no parameter changes, away from all axes: a first RZ or a last one would change
    nothing, and of a gradient that is nothing but rounding Adam makes steps like of any other.
    """

    n_qubits: int = hyperparameter(2, Fixed(2), kind="structural", description="qubits")
    n_gates: int = hyperparameter(9, Fixed(9), kind="structural", description="gates")
    draw: int = hyperparameter(0, Fixed(0), kind="structural", description="which circuit")

    def circuit(self, num_features):
        rng = np.random.default_rng(self.draw)
        circuit = Builder(self.n_qubits)
        self.turn(circuit)
        for i in range(self.n_gates):
            if i % 3 == 2 and self.n_qubits > 1:
                circuit.couple(str(rng.choice(ENTANGLERS)), *map(int, rng.choice(self.n_qubits, 2, replace=False)))
            else:
                angle = circuit.encode(i % num_features, circuit.parameter(-1, 1), circuit.parameter(0, 1))
                angle = replace(angle, constant=float(rng.normal()))
                circuit.rotate(str(rng.choice(list("xyz"))), int(rng.integers(self.n_qubits)), angle)
        self.turn(circuit)
        return circuit.build("".join(rng.choice(list("XYZ"), self.n_qubits)) for _ in range(self.n_qubits))

    def turn(self, circuit):
        for qubit in range(self.n_qubits):
            circuit.rotate("x", qubit, 0.7)
            circuit.rotate("z", qubit, 1.1)
            circuit.rotate("y", qubit, 0.9)


def random_pqc(rng):
    """Different depth, width, gates and observables."""
    qubits, gates, draw = int(rng.integers(1, 4)), int(rng.integers(4, 12)), int(rng.integers(1000))
    return AnyPQC(qubits, gates, draw, scale_outputs=bool(rng.random() < 0.5))


def largest_pqc():
    return AnyPQC(4, 40, 0, scale_outputs=True)


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


def flag(rng):
    return bool(rng.random() < 0.5)


def random_pqn(rng, network):
    envs, length = int(rng.integers(1, 6)), int(rng.integers(2, 8))
    divisors = [n for n in range(1, envs * length + 1) if envs * length % n == 0 and envs * length // n <= 12]
    return PQN(
        critic_network=network(rng),
        critic_lr=rng.uniform(1e-4, 3e-3),
        gamma=rng.uniform(0.8, 1),
        q_lambda=rng.uniform(0.2, 1),
        max_grad_norm=rng.uniform(0.1, 2),
        initial_epsilon=rng.uniform(0.5, 1),
        training_epsilon=rng.uniform(0, 0.3),
        exploration_fraction=rng.uniform(0, 1),
        rollout_length=length,
        epochs=int(rng.integers(1, 4)),
        num_minibatches=int(rng.choice(divisors)),
        total_num_envs=envs,
        decay_learning_rates=flag(rng),
        normalize_observations=flag(rng),
    )


def largest_pqn(network):
    return PQN(network, rollout_length=9, total_num_envs=7, num_minibatches=1, epochs=5)


def random_replay(rng):
    """Small enough that the memory is written over, and that learning starts in the second update at the latest."""
    envs, length = int(rng.integers(1, 6)), int(rng.integers(2, 8))
    return {
        "rollout_length": length,
        "epochs": int(rng.integers(1, 5)),
        "total_num_envs": envs,
        "warmup_rollout_length": int(rng.integers(0, 2 * length)),
        "total_buffer_size": int(rng.integers(12, 60)),
        "total_batch_size": int(rng.integers(1, 12)),
        "normalize_observations": flag(rng),
        "noise_period": int(rng.integers(1, 4)),
    }


LARGEST_REPLAY = {
    "rollout_length": 9,
    "total_num_envs": 7,
    "epochs": 6,
    "total_buffer_size": 77,
    "total_batch_size": 13,
}


def random_dqn(rng, network):
    return DQN(
        critic_network=network(rng),
        critic_lr=rng.uniform(1e-4, 3e-3),
        gamma=rng.uniform(0.8, 1),
        tau=rng.uniform(0.1, 1),
        target_update_interval=int(rng.integers(1, 4)),
        max_grad_norm=rng.uniform(0.1, 2),
        huber_loss_parameter=max(0.0, rng.uniform(-0.5, 1)),
        max_abs_reward=rng.uniform(0.5, 5),
        initial_epsilon=rng.uniform(0.5, 1),
        training_epsilon=rng.uniform(0, 0.3),
        exploration_fraction=rng.uniform(0, 1),
        use_double_q=flag(rng),
        use_dueling=flag(rng),
        n_step=int(rng.integers(1, 5)),
        use_prioritized_replay=flag(rng),
        priority_exponent=rng.uniform(0.3, 1),
        importance_exponent=rng.uniform(0.2, 1),
        decay_learning_rates=flag(rng),
        **random_replay(rng),
    )


def largest_dqn(network):
    return DQN(network, n_step=5, use_prioritized_replay=True, **LARGEST_REPLAY)


def random_sac(rng, network):
    return SAC(
        actor_network=network(rng),
        critic_network=network(rng),
        actor_lr=rng.uniform(1e-4, 3e-3),
        q_lr=rng.uniform(1e-4, 3e-3),
        alpha_lr=rng.uniform(1e-4, 3e-3),
        gamma=rng.uniform(0.8, 1),
        tau=rng.uniform(0.05, 1),
        max_grad_norm=rng.uniform(0.1, 2),
        autotune=flag(rng),
        init_alpha=rng.uniform(0.1, 2),
        target_entropy_scale=rng.uniform(0.1, 1),
        **random_replay(rng),
        decay_learning_rates=flag(rng),
    )


def largest_sac(network):
    return SAC(network, network, **LARGEST_REPLAY)


# --- what of a state belongs to the lane, and what is padding --------------------------------------


class Parts(NamedTuple):
    """A state's own part, and the parts that are padding, as flat lists of arrays."""

    own: Any
    padding: list[np.ndarray]


def masks(agent, hyperparams):
    """Which entries of the parameter vectors are the lane's own: those of its network at exact size."""
    out = {}
    for name, networks in agent.networks.items():
        family = getattr(hyperparams, f"{name}_network")
        member = networks.members[networks.shape.index(family)]
        exact = member.network.exact(family).abstract_params
        inside = pad(jax.tree.map(lambda x: np.ones(x.shape, bool), exact), member.network.abstract_params)
        mask = member.vector.pack({"free": np.ones(networks.num_free), "network": inside}) > 0
        out[name] = np.pad(mask, (0, networks.size - mask.size))
    return out


def parts(agent, state, hyperparams):
    n, own, padding = hyperparams.total_num_envs, {}, []
    mask_of = masks(agent, hyperparams)
    for name, learner in state.learners.items():
        leaves = jax.tree.leaves(learner)
        if name in mask_of:
            mask = mask_of[name]
            vectors = [leaf.shape[-1:] == mask.shape for leaf in leaves]
            padding += [leaf[..., ~mask] for leaf, v in zip(leaves, vectors, strict=True) if v]
            leaves = [leaf[..., mask] if v else leaf for leaf, v in zip(leaves, vectors, strict=True)]
        own[name] = leaves
    copies = jax.tree.map(lambda x: x[:n], state.copies)
    rest = []
    if hasattr(state, "memory"):
        rows = hyperparams.buffer_steps * n
        memory = state.memory
        rest += [memory.rows[:rows], memory.steps]
        padding.append(memory.rows[rows:])
        if memory.priorities is not None and hyperparams.use_prioritized_replay:
            rest += [memory.priorities[0][:rows], memory.largest]
    return Parts((own, copies, rest, state.statistics, state.updates), padding)


def poisoned(agent, state, hyperparams):
    """The state with all its padding overwritten: environments and memory by NaN, parameters by large numbers."""
    n, rng = hyperparams.total_num_envs, np.random.default_rng(0)

    def poison(x, beyond):
        x = np.array(x)
        if np.issubdtype(x.dtype, np.floating):
            x[beyond:] = np.nan
        return x

    learners = dict(state.learners)
    for name, mask in masks(agent, hyperparams).items():
        noise = np.where(mask, 0, 1e3 * rng.normal(size=mask.shape)).astype(np.float32)
        learner = learners[name]
        target = None if learner.target is None else learner.target + noise
        learners[name] = learner._replace(params=learner.params + noise, target=target)
    state = state._replace(learners=learners, copies=jax.tree.map(lambda x: poison(x, n), state.copies))
    if hasattr(state, "memory"):
        rows = poison(state.memory.rows, hyperparams.buffer_steps * n)
        state = state._replace(memory=state.memory._replace(rows=rows))
    return state


class Algorithm(NamedTuple):
    """What the tests must know of an algorithm.

    Attributes:
        draw: random hyperparameters ``(rng, draw of a network)``.
        largest: hyperparameters ``(network)`` whose shape exceeds all random ones.
        explode: the change of hyperparameters that makes a lane non-finite.
    """

    draw: Any
    largest: Any
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


ALGORITHMS = {
    "ppo": Algorithm(random_ppo, largest_ppo, {"actor_lr": 3e38, "critic_lr": 3e38}),
    "pqn": Algorithm(random_pqn, largest_pqn, {"critic_lr": 3e38}),
    "dqn": Algorithm(random_dqn, largest_dqn, {"critic_lr": 3e38}),
    "sac": Algorithm(random_sac, largest_sac, {"actor_lr": 3e38, "q_lr": 3e38}),
}
NETWORKS = {
    "mlp": Family(random_mlp, largest_mlp),
    "tmlp": Family(random_tmlp, largest_tmlp),
    "cnn": Family(random_cnn, largest_cnn),
    "pqc": Family(random_pqc, largest_pqc),
}
CASES = {
    "ppo-mlp-discrete": Case("ppo", "mlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=198),
    "ppo-mlp-continuous": Case("ppo", "mlp", "gymnax.pendulum", (("max_episode_steps", 6),), seed=639),
    "dqn-mlp": Case("dqn", "mlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=4),
    "sac-tmlp-discrete": Case("sac", "tmlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=0),
    "pqn-cnn": Case("pqn", "cnn", "gymnax.breakout", seed=0),
    "sac-mlp-continuous": Case("sac", "mlp", "gymnax.pendulum", (("max_episode_steps", 6),), seed=11),
    "ppo-tmlp": Case("ppo", "tmlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=514),
    "ppo-pqc": Case("ppo", "pqc", "gymnax.cartpole", (("max_episode_steps", 15),), seed=12),
    "sac-pqc": Case("sac", "pqc", "gymnax.pendulum", (("max_episode_steps", 6),), seed=1),
    "pqn-mlp": Case("pqn", "mlp", "gymnax.cartpole", (("max_episode_steps", 15),), seed=5),
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
    return replace(reduce(lambda a, b: a.merge(b), shapes), chunks=chunks)


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

    def states(self, lanes):
        """What each task's lane has of its own; copies of environments that are padding may miss resets."""
        state_of = lambda lane: jax.tree.map(lambda x: x[lane], lanes.state)  # noqa: E731
        own = [parts(self.mixed.agent, state_of(i), task.hyperparams).own for i, task in enumerate(self.tasks)]
        return own, lanes.keys, lanes.hyperparams, lanes.diverged

    def own(self, program, result, lane, task):
        """Everything about a lane that must not depend on its neighbours or on padding."""
        own = parts(program.agent, self.state(result, lane), task.hyperparams).own
        metrics = [{name: x[lane] for name, x in tick.items()} for tick in result.metrics]
        return own, metrics, result.lanes.diverged[lane], [x[lane] for x in result.evaluation]


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


# One case of each algorithm, and a circuit; the others are slow tests.
IN_PAIRS = ("ppo-mlp-discrete", "dqn-mlp", "sac-mlp-continuous", "pqn-mlp", "ppo-pqc")


def test_networks_side_by_side_are_as_good_as_padded_ones(world):
    assert_as_good_as_padded(world, 1, [0, 1, 2, 3])


# By the fixture's own parameters: tests of one case share its programs where their names end alike.
@pytest.mark.parametrize(
    "world", [pytest.param(c, marks=() if c in IN_PAIRS else pytest.mark.slow) for c in CASES], indirect=True
)
def test_networks_side_by_side_in_pairs_are_as_good_as_padded_ones(world):
    assert_as_good_as_padded(world, 2, [3, 0, 1, 1, 2, 2])


def assert_as_good_as_padded(world, group, order):
    """Lanes that share a shape, two by two or one by one, take the branch of their own network."""
    program = world.program(world.side_by_side, len(order), group=group)
    assert world.side_by_side.num_alternatives > world.shape.num_alternatives
    result = train(program, [world.tasks[i] for i in order])
    for lane, i in enumerate(order):
        assert_close(
            world.own(program, result, lane, world.tasks[i]),
            world.own(world.mixed, world.reference, i, world.tasks[i]),
        )
        for leaf in parts(program.agent, world.state(result, lane), world.tasks[i].hyperparams)[1]:
            np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_two_devices_are_as_good_as_one(world):
    program = world.program(world.shape, 4, devices=2)
    assert_close(train(program, world.tasks), world.reference)


def test_same_seed_same_bits_and_other_seed_other_numbers(world):
    assert_same_bits(train(world.mixed, world.tasks), world.reference)
    first, other = world.state(world.reference, 0), world.state(world.reference, 3)
    for name in world.mixed.agent.networks:
        assert not np.array_equal(first.learners[name].params, other.learners[name].params)


def test_padded_parameters_stay_exactly_zero(world):
    padded = 0
    for lane, task in enumerate(world.tasks):
        for leaf in parts(world.mixed.agent, world.state(world.reference, lane), task.hyperparams).padding:
            np.testing.assert_array_equal(leaf, 0.0)
            padded += leaf.size
    assert padded > 0


def test_padding_never_speaks(world):
    def poison(lanes):
        states = [jax.tree.map(lambda x, i=i: x[i], lanes.state) for i in range(len(world.tasks))]
        states = [
            poisoned(world.mixed.agent, state, task.hyperparams)
            for state, task in zip(states, world.tasks, strict=True)
        ]
        return lanes._replace(state=jax.tree.map(lambda *leaves: np.stack(leaves), *states))

    result = train(world.mixed, world.tasks, change=poison)
    for lane, task in enumerate(world.tasks):
        got = world.own(world.mixed, result, lane, task)
        assert_same_bits(got, world.own(world.mixed, world.reference, lane, task))


def test_a_lane_that_does_nothing_keeps_every_bit(world):
    idle = train(world.mixed, world.tasks, ticks=[[1, 1, 0, 1], [3, 3, 0, 3]])
    begun = train(world.mixed, world.tasks, ticks=[])
    assert_same_bits(pick(idle.lanes, [2]), pick(begun.lanes, [2]))
    assert all(np.isnan(tick[name][2]) for tick in idle.metrics for name in tick)
    assert_same_bits(pick(idle, [0, 1, 3]), pick(world.reference, [0, 1, 3]))


def test_a_paused_lane_goes_on_as_if_nothing_had_happened(world):
    paused = train(world.mixed, world.tasks, ticks=[[0, 4, 2, 1], [4, 0, 1, 1], [0, 0, 1, 2]])
    assert_same_bits(world.states(paused.lanes), world.states(world.reference.lanes))
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

        return lanes._replace(state=lanes.state._replace(copies=jax.tree.map(nan, lanes.state.copies)))

    result = train(world.mixed, world.tasks, change=spoil)
    np.testing.assert_array_equal(result.lanes.diverged, [False, False, True, False])
    assert_same_bits(pick(result, [0, 1, 3]), pick(world.reference, [0, 1, 3]))


def test_a_swapped_in_task_runs_as_from_the_start(world):
    program = world.mixed
    lanes = program.admit(program.empty(), [world.tasks[i] for i in (0, 1, 2, 2)])
    lanes, _ = program.tick(lanes, np.array([4, 2, 4, 3]))
    lanes = program.admit(lanes, [None, None, None, world.tasks[3]])
    lanes, _ = program.tick(lanes, np.array([0, 2, 0, 4]))
    assert_same_bits(world.states(jax.device_get(lanes)), world.states(world.reference.lanes))


# --- twice the precision ---------------------------------------------------------------------------


class DoubleProgram(Program):
    """A program whose hyperparameters and parameters are float64."""

    def _host_side(self, task):
        widen = lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x  # noqa: E731
        return jax.tree.map(widen, super()._host_side(task))


@pytest.mark.parametrize(
    "name, discrete",
    [pytest.param("ppo", True, marks=pytest.mark.slow), ("ppo", False), ("pqn", True), ("dqn", True), ("sac", False)],
)
def test_alone_equals_batched_over_dozens_of_updates_in_double_precision(make_spring, name, discrete):
    env, rng, draw = make_spring(discrete), np.random.default_rng(1374), ALGORITHMS[name].draw
    tasks = [Task(i, 0, draw(rng, random_mlp)) for i in range(3)]
    shape = merge([task.hyperparams.shape(env) for task in tasks], 4).together()

    def run(shape, tasks):
        program = DoubleProgram(
            tasks[0].hyperparams, env, shape, num_lanes=len(tasks), total_timesteps=2000, num_eval_episodes=2,
            run_seed=7, mesh=local_mesh(1),
        )  # fmt: skip
        program.compile()
        return program.agent, train(program, tasks, ticks=[10, 30])

    def own(agent, result, lane, task):
        own = parts(agent, jax.tree.map(lambda x: x[lane], result.lanes.state), task.hyperparams).own
        return own, [[x[lane] for x in tick.values()] for tick in result.metrics]

    with jax.enable_x64(True):
        agent, mixed = run(shape, tasks)
        assert all(
            x.dtype == np.float64 for x in jax.tree.leaves([x.params for x in mixed.lanes.state.learners.values()])
        )
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
