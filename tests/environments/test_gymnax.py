"""The gymnax adapter against gymnax's own step function, and against what the protocol promises."""

from __future__ import annotations

import gzip
import struct
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.environments import Box, Discrete, make, names
from hyperlax.environments.gymnax import IDS, GymnaxEnvironment
from hyperlax.environments.protocol import observation_size
from hyperlax.errors import UserError

# Names that need no download.
EVERY = [name for name in names() if name.startswith("gymnax.") and name != "gymnax.mnist_bandit"]

# Time limits in steps. Where the environment's rules end every episode sooner, gymnax's limit is never met.
LIMITS = {
    "acrobot": 500,
    "asterix": 1000,
    "bernoulli_bandit": 100,
    "breakout": 1000,
    "cartpole": 500,
    "catch": 1000,
    "deep_sea": 8,
    "discounting_chain": 100,
    "four_rooms": 500,
    "freeway": 2500,
    "frozen_lake": 100,
    "gaussian_bandit": 100,
    "memory_chain": 1000,
    "meta_maze": 200,
    "mountain_car": 200,
    "mountain_car_continuous": 999,
    "pendulum": 200,
    "point_robot": 100,
    "pong": 1000,
    "reacher": 100,
    "seaquest": 1000,
    "simple_bandit": 100,
    "space_invaders": 1000,
    "swimmer": 500,
    "umbrella_chain": 100,
}


def discrete_action(n, key, observation):
    """A uniformly random action."""
    return jax.random.randint(key, (), 0, n)


def box_action(size, key, observation):
    """A random action, often outside of [-1, 1]: the adapter has to clip it."""
    return jax.random.uniform(key, (size,), minval=-1.5, maxval=1.5)


def swing(key, observation):
    """Accelerates where the car is going already, which gets it out of the valley."""
    return jnp.where(observation[1:] >= 0, 1.0, -1.0)


def flat(observation):
    return jnp.reshape(observation, -1).astype(jnp.float32)


def same(observation):
    return observation


def in_16_cells(observation):
    return (jnp.arange(16) == observation).astype(jnp.float32)


def scaled(factor, action):
    return factor * jnp.clip(action, -1.0, 1.0)


# name, limit, steps, policy, its action in gymnax's units, gymnax's observation as ours, ends that must occur
ORACLE = [
    ("cartpole", 20, 200, partial(discrete_action, 2), same, same, "both"),
    ("pendulum", 200, 410, partial(box_action, 1), partial(scaled, 2.0), same, "truncated"),
    ("mountain_car_continuous", 999, 300, swing, same, same, "terminated"),
    ("reacher", 100, 110, partial(box_action, 2), partial(scaled, 1.0), same, "truncated"),
    ("point_robot", 30, 70, partial(box_action, 2), partial(scaled, 0.1), same, "truncated"),
    ("breakout", 20, 200, partial(discrete_action, 3), same, same, "both"),
    ("catch", 1000, 30, partial(discrete_action, 3), same, flat, "terminated"),
    ("frozen_lake", 6, 200, partial(discrete_action, 4), same, in_16_cells, "both"),
]


def run_beside_gymnax(name, limit, num_steps, policy, suite_action):
    """Runs the adapter and gymnax's auto-resetting ``step`` with the same keys and actions.

    Returns two dicts of arrays with a leading axis of time: ours and gymnax's.
    """
    import gymnax

    env = make(f"gymnax.{name}", max_episode_steps=limit)
    suite, params = gymnax.make(IDS[name])
    params = params.replace(max_steps_in_episode=limit)

    def body(carry, key):
        state, observation, suite_state = carry
        key_action, key_step = jax.random.split(key)
        action = policy(key_action, observation)
        _, suite_state, reward, terminated, truncated, info = suite.step(
            key_step, suite_state, suite_action(action), params
        )
        theirs = dict(observation=info["final_observation"], reward=reward, terminated=terminated)
        theirs |= dict(truncated=truncated & ~terminated, state=suite_state)

        # gymnax.step draws the transition from the first half of its key and the reset from the second.
        key_transition, key_reset = jax.random.split(key_step)
        state, transition = env.step(key_transition, state, action)
        fresh = env.reset(key_reset)
        done = transition.terminated | transition.truncated
        state, observation = jax.tree.map(partial(jnp.where, done), fresh, (state, transition.observation))
        ours = {**transition._asdict(), "state": state}
        return (state, observation, suite_state), (ours, theirs)

    @jax.jit
    def run(key):
        key_reset, key_run = jax.random.split(key)
        state, observation = env.reset(key_reset)
        _, suite_state = suite.reset(key_reset, params)
        suite_state = jax.tree.map(lambda theirs, ours: jnp.asarray(theirs, ours.dtype), suite_state, state)
        return jax.lax.scan(body, (state, observation, suite_state), jax.random.split(key_run, num_steps))[1]

    return run(jax.random.key(3))


@pytest.mark.parametrize(
    ("name", "limit", "num_steps", "policy", "suite_action", "seen_as", "ends"),
    ORACLE,
    ids=[f"{row[0]}-{row[1]}" for row in ORACLE],
)
def test_steps_equal_gymnax(name, limit, num_steps, policy, suite_action, seen_as, ends):
    ours, theirs = run_beside_gymnax(name, limit, num_steps, policy, suite_action)
    theirs["observation"] = jax.vmap(seen_as)(theirs["observation"])
    assert bool(ours["terminated"].any()) == (ends in ("both", "terminated"))
    assert bool(ours["truncated"].any()) == (ends in ("both", "truncated"))
    if ends == "truncated":
        assert np.flatnonzero(ours["truncated"]).tolist() == list(range(limit - 1, num_steps, limit))
    for part in ("terminated", "truncated"):
        np.testing.assert_array_equal(ours[part], theirs[part])
    for part in ("observation", "reward"):
        np.testing.assert_allclose(ours[part], theirs[part], rtol=1e-5, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours["state"], theirs["state"])


def first_action(env):
    return jnp.int32(1) if isinstance(env.action_space, Discrete) else jnp.full((env.action_space.size,), 0.5)


def kinds(tree):
    return [(leaf.shape, leaf.dtype.name, leaf.weak_type) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", EVERY)
def test_every_environment_keeps_the_protocol(name):
    """A few steps in a scan: stable carry, promised shapes, finite values, and truncation at the time limit."""
    env = make(name)
    action = first_action(env)

    @jax.jit
    def run(key):
        state, observation = env.reset(key)
        # All states count their steps in `time`: the last-but-one step of an episode, without taking the others.
        late = state.replace(time=jnp.full_like(state.time, env.max_episode_steps - 2))
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), state, late)
        step = jax.vmap(env.step, in_axes=(None, 0, None))
        after, transitions = jax.lax.scan(lambda s, k: step(k, s, action), both, jax.random.split(key, 3))
        early, late = (jax.tree.map(lambda leaf, i=i: leaf[:, i], transitions) for i in (0, 1))
        return both, after, observation, early, late

    state, after, observation, transitions, late = run(jax.random.key(0))
    assert env.name == name
    assert env.max_episode_steps == LIMITS[name.removeprefix("gymnax.")]
    assert kinds(state) == kinds(after)
    assert kinds(observation) == [(env.observation_shape, "float32", False)]
    assert kinds(transitions) == [
        ((3, *env.observation_shape), "float32", False),
        ((3,), "float32", False),
        ((3,), "bool", False),
        ((3,), "bool", False),
    ]
    assert len(env.observation_shape) in (1, 3)
    assert bool(jnp.isfinite(transitions.observation).all() & jnp.isfinite(transitions.reward).all())
    assert not bool((late.terminated & late.truncated).any())
    assert not bool(late.truncated[0])
    if name != "gymnax.simple_bandit":  # whose episodes terminate after every step
        assert bool(late.truncated[1])


def test_observation_shapes():
    shapes = {name: make(f"gymnax.{name}").observation_shape for name in ("catch", "breakout", "frozen_lake", "pong")}
    assert shapes == {"catch": (50,), "breakout": (10, 10, 4), "frozen_lake": (16,), "pong": (30, 40, 3)}
    assert observation_size(make("gymnax.breakout")) == 400


def test_action_spaces():
    assert make("gymnax.cartpole").action_space == Discrete(2)
    assert make("gymnax.pendulum").action_space == Box(1)
    assert make("gymnax.reacher").action_space == Box(2)
    assert make("gymnax.simple_bandit", num_actions=4).action_space == Discrete(4)


class Echo:
    """A minimal gymnax environment whose observation is the action that it received, with a scalar observation."""

    def __new__(cls, low, high, shape):
        from flax import struct
        from gymnax.environments import environment, spaces

        @struct.dataclass
        class State(environment.EnvState):
            time: int

        class Env(environment.Environment):
            def reset_env(self, key, params):
                return jnp.zeros(shape), State(time=0)

            def step_env(self, key, state, action, params):
                assert action.shape == shape
                return action, State(time=state.time + 1), jnp.ones(1), jnp.zeros(1, bool), {}

            def action_space(self, params=None):
                return spaces.Box(low, high, shape)

            def observation_space(self, params):
                return spaces.Box(low, high, shape)

        return GymnaxEnvironment("mine.echo", Env(), environment.EnvParams(max_steps_in_episode=2))


@pytest.mark.parametrize(
    ("low", "high", "given", "received"),
    [
        (-1.0, 1.0, [0.1, -1e-8, 7.0], [0.1, -1e-8, 1.0]),
        ([0.0, -2.0, 5.0], [1.0, 4.0, 6.0], [0.0, -1.0, 0.5], [0.5, -2.0, 5.75]),
        (-np.inf, np.inf, [0.3, 1.0, -5.0], [0.3, 1.0, -1.0]),
        ([0.0, -np.inf, -3.4028235e38], [np.inf, 1.0, 3.4028235e38], [0.3, 0.2, -0.1], [0.3, 0.2, -0.1]),
    ],
    ids=["unit", "affine", "unbounded", "half-bounded"],
)
def test_actions_are_clipped_and_scaled(low, high, given, received):
    env = Echo(jnp.array(low), jnp.array(high), (3,))
    state, _ = env.reset(jax.random.key(0))
    _, transition = env.step(jax.random.key(0), state, jnp.array(given))
    np.testing.assert_array_equal(transition.observation, np.array(received, np.float32))


def test_actions_take_the_shape_of_the_environment():
    """Rewards and ends of shape (1,), and scalar observations, come out in the shapes of the protocol."""
    env = Echo(-2.0, 2.0, ())
    assert env.action_space == Box(1)
    assert env.observation_shape == (1,)
    state, _ = env.reset(jax.random.key(0))
    _, transition = env.step(jax.random.key(0), state, jnp.array([0.25]))
    assert kinds(transition)[1:] == [((), "float32", False), ((), "bool", False), ((), "bool", False)]
    np.testing.assert_array_equal(transition.observation, [0.5])


def test_lanes_of_environments_in_a_while_loop_equal_single_ones():
    """Two levels of vmap under a traced trip count give each environment what it gets alone."""
    env = make("gymnax.pendulum")
    num_steps = jnp.array([4, 9])
    keys = jax.random.split(jax.random.key(0), (2, 3))

    def roll(key, state, length):
        def body(carry):
            t, state, total = carry
            action = jax.random.uniform(jax.random.fold_in(key, t), (1,), minval=-1.0)
            state, transition = env.step(key, state, action)
            return t + 1, state, total + transition.reward

        return jax.lax.while_loop(lambda carry: carry[0] < length, body, (jnp.int32(0), state, jnp.float32(0)))[1:]

    def alone(key, length):
        return roll(key, env.reset(key)[0], length)

    batched = jax.jit(jax.vmap(jax.vmap(alone, in_axes=(0, None))))(keys, num_steps)
    single = jax.jit(alone)
    for lane in range(2):
        for index in range(3):
            expected = single(keys[lane, index], num_steps[lane])
            got = jax.tree.map(lambda leaf: leaf[lane, index], batched)  # noqa: B023
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, expected)


@pytest.mark.parametrize("name", ["gymnax.pendulum", "gymnax.gaussian_bandit", "gymnax.space_invaders"])
def test_the_caller_may_use_64_bits(name):
    """Gymnax mixes up 32 and 64 bits in these; the adapter gives the same episode in either mode."""
    env = make(name)

    def run(key):
        state, _ = env.reset(key)
        return jax.lax.scan(lambda state, key: env.step(key, state, first_action(env)), state, jax.random.split(key, 3))

    plain = jax.jit(run)(jax.random.key(1))
    with jax.enable_x64(True):
        wide = jax.jit(run)(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, plain, wide)
    assert kinds(plain) == kinds(wide)


def test_options_reach_parameters_and_constructor():
    env = make("gymnax.deep_sea", size=5, deterministic=True, unscaled_move_cost=0.5)
    assert env.observation_shape == (25,)
    assert env.max_episode_steps == 5
    heavy = make("gymnax.pendulum", m=2, max_episode_steps=np.int64(7))
    assert heavy.max_episode_steps == 7
    state, _ = heavy.reset(jax.random.key(0))
    state = state.replace(theta=jnp.float32(0), theta_dot=jnp.float32(0))
    _, transition = heavy.step(jax.random.key(0), state, jnp.ones(1))
    # theta'' = 3 torque / (m l^2), with torque 2 and steps of 0.05 s
    np.testing.assert_allclose(transition.observation[2], 3 * 2 / 2 * 0.05, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pendulum", {"gravty": 1.0}, "unknown option of gymnax.pendulum 'gravty'"),
        ("deep_sea", {"sise": 4}, "unknown option of gymnax.deep_sea 'sise': did you mean size"),
        (
            "pendulum",
            {"max_episode_steps": 0},
            "option 'max_episode_steps' of gymnax.pendulum: received 0, accepted: a",
        ),
        ("pendulum", {"max_episode_steps": 2.5}, "option 'max_episode_steps' of gymnax.pendulum: received 2.5"),
        ("pendulum", {"g": "strong"}, "option 'g' of gymnax.pendulum: received 'strong', accepted: a number"),
        ("deep_sea", {"deterministic": 1}, "option 'deterministic' of gymnax.deep_sea: received 1, accepted: true or"),
        ("frozen_lake", {"map_name": "5x5"}, "options of gymnax.frozen_lake were refused: map_name must be"),
        ("reacher", {"num_joints": 3}, "options of gymnax.reacher were refused: Cannot concatenate arrays with shapes"),
        ("meta_maze", {"maze_size": 4}, "options of gymnax.meta_maze were refused: a value is out of its range"),
    ],
)
def test_bad_options_are_refused(name, given, message):
    with pytest.raises(UserError) as error:
        make(f"gymnax.{name}", **given)
    assert str(error.value).startswith(message)


@pytest.fixture
def mnist_folder(monkeypatch, tmp_path):
    """Sends gymnax to an empty folder for its MNIST files."""
    from gymnax.utils import load_mnist

    monkeypatch.setattr(load_mnist.load_mnist, "__defaults__", (str(tmp_path),))
    return tmp_path


def write_mnist(folder, num_images):
    """Writes a black-and-white MNIST whose image ``i`` has the label ``i`` and one white-ish pixel, the ``i``-th."""
    images = np.zeros((num_images, 28, 28), np.uint8)
    images[np.arange(num_images), 0, np.arange(num_images)] = 51
    for part in ("train", "t10k"):
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">IIII", 2051, num_images, 28, 28) + images.tobytes())
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, num_images) + bytes(range(num_images)))


def test_mnist_without_its_data_is_refused(mnist_folder):
    with pytest.raises(UserError, match=r"gymnax\.mnist_bandit needs the MNIST data set: train-images-idx3-ubyte\.gz"):
        make("gymnax.mnist_bandit")
    write_mnist(mnist_folder, 4)
    (mnist_folder / "train-labels-idx1-ubyte.gz").write_bytes(b"half a download")
    with pytest.raises(UserError, match=r"gymnax\.mnist_bandit: its data cannot be read"):
        make("gymnax.mnist_bandit")


def test_mnist_with_its_data(mnist_folder):
    write_mnist(mnist_folder, 4)
    env = make("gymnax.mnist_bandit")
    assert (env.observation_shape, env.action_space) == ((784,), Discrete(10))
    state, observation = env.reset(jax.random.key(0))
    label = int(jnp.argmax(observation))
    np.testing.assert_allclose(observation[label], 0.2, rtol=1e-6)
    _, right = env.step(jax.random.key(0), state, jnp.int32(label))
    _, wrong = env.step(jax.random.key(0), state, jnp.int32(9))
    assert (float(right.reward), float(wrong.reward), bool(right.terminated)) == (1.0, -1.0, True)
