"""Names, one's own environments, and what bad input is answered with."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from hyperlax.environments import Discrete, Environment, Transition, make, names, register, registry
from hyperlax.errors import UserError


class Corridor:
    """Three cells; action 1 walks right, reaching the end pays 1 and terminates."""

    def __init__(self, max_episode_steps: int = 5, backend: str = "wood") -> None:
        self.name = "mine.corridor"
        self.observation_shape = (1,)
        self.action_space = Discrete(2)
        self.max_episode_steps = max_episode_steps
        self.backend = backend

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, key, state, action):
        state = state + action
        terminated = state >= 3
        transition = Transition(state[None].astype(jnp.float32), jnp.float32(terminated), terminated, jnp.array(False))
        return state, transition


@pytest.fixture
def own_entries(monkeypatch):
    """Lets a test register names without leaving them behind."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def test_names_are_sorted_and_complete():
    listed = names()
    assert listed == sorted(set(listed))
    assert len([n for n in listed if n.startswith("gymnax.")]) == 26
    assert len([n for n in listed if n.startswith("brax.")]) == 11
    assert {"gymnax.cartpole", "gymnax.mnist_bandit", "brax.ant", "brax.inverted_double_pendulum"} <= set(listed)


def test_listing_names_imports_no_suite():
    code = (
        "import sys; from hyperlax.environments import names; names(); "
        "print([m for m in ('gymnax', 'brax', 'mujoco') if m in sys.modules])"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"


def test_own_environment_is_registered_with_one_call(own_entries):
    register("mine.corridor", Corridor)
    env = make("mine.corridor", max_episode_steps=7)
    assert isinstance(env, Environment)
    assert env.max_episode_steps == 7
    assert "mine.corridor" in names()
    state, _ = env.reset(jax.random.key(0))
    rewards = []
    for _ in range(3):
        state, transition = env.step(jax.random.key(0), state, jnp.int32(1))
        rewards.append(float(transition.reward))
    assert rewards == [0.0, 0.0, 1.0]


def test_own_environment_with_backends(own_entries):
    register("mine.corridor", Corridor, backends=("wood", "stone"))
    assert make("mine.corridor").backend == "wood"
    assert make("mine.corridor@stone").backend == "stone"
    with pytest.raises(UserError, match=r"unknown backend of mine\.corridor 'stome': did you mean stone\?"):
        make("mine.corridor@stome")


@pytest.mark.parametrize(
    ("name", "factory", "message"),
    [
        ("gymnax.cartpole", Corridor, "environment 'gymnax.cartpole' is already registered"),
        ("mine.corridor", 3, "environment 'mine.corridor': received 3, accepted: a callable"),
        ("mine@corridor", Corridor, "environment name 'mine@corridor': accepted is a text without"),
        ("", Corridor, "environment name '': accepted is a text without"),
    ],
)
def test_bad_registrations_are_refused(own_entries, name, factory, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        register(name, factory)


def test_factory_must_return_an_environment(own_entries):
    register("mine.nothing", dict)
    with pytest.raises(UserError, match=r"'mine\.nothing': its factory returned a dict, which lacks some of: name"):
        make("mine.nothing")


def test_options_that_a_factory_does_not_take_are_refused(own_entries):
    register("mine.corridor", Corridor)
    with pytest.raises(UserError, match=r"options of mine\.corridor were refused: .*'lenght'"):
        make("mine.corridor", lenght=3)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("gymnax.cartpol", "gymnax.cartpole"),
        ("Gymnax.CartPole", "gymnax.cartpole"),
        ("gymnax.mountain-car", "gymnax.mountain_car"),
        ("brax.antt@mjx", "brax.ant"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, suggestion):
    with pytest.raises(UserError, match=rf"unknown environment .*did you mean.*{suggestion}"):
        make(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gymnax.cartpole@mjx", {}, "environment 'gymnax.cartpole@mjx': gymnax.cartpole has no backends"),
        ("brax.ant@mjxx", {}, "unknown backend of brax.ant 'mjxx': did you mean mjx?"),
        ("brax.ant", {"backend": "xyz"}, "unknown backend of brax.ant 'xyz': accepted: generalized, mjx"),
        ("brax.swimmer@spring", {}, "unknown backend of brax.swimmer 'spring': accepted: generalized"),
        ("brax.ant@mjx", {"backend": "spring"}, "environment 'brax.ant@mjx' contradicts the option backend='spring'"),
    ],
)
def test_backends_that_do_not_exist_are_refused(name, options, message):
    with pytest.raises(UserError) as error:
        make(name, **options)
    assert str(error.value).startswith(message)


def test_missing_brax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(UserError, match=r"brax\.ant@spring needs brax .*pip install 'hyperlax\[brax\]'"):
        make("brax.ant@spring")
