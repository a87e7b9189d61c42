"""Hyperparameters: declared once, listed, read, replaced, refused."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from hyperlax.errors import UserError
from hyperlax.spaces import (
    Categorical,
    Fixed,
    LogUniform,
    Uniform,
    at_least,
    declarations,
    each,
    flatten,
    fraction,
    hyperparameter,
    nested,
    non_negative,
    one_of,
    positive,
    replace,
    space,
)

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]


def declare(default: Any, check: Any = None) -> Any:
    return hyperparameter(default, Fixed(default), kind="scalar", description="a test", check=check)


@dataclass(frozen=True)
class Torso:
    layer_sizes: tuple[int, ...] = hyperparameter(
        (64, 64),
        Categorical(((32, 32), (64, 64))),
        kind="structural",
        description="widths of the hidden layers",
        check=each(at_least(1)),
    )
    activation: str = declare("tanh", one_of("tanh", "relu"))


@dataclass(frozen=True)
class Other:
    n_layers: int = declare(5, at_least(1))


@dataclass(frozen=True)
class Hyperparams:
    actor_lr: float = hyperparameter(
        3e-4, LogUniform(1e-5, 1e-3), kind="scalar", description="step size of the actor", check=positive
    )
    actor_network: Any = nested(Torso)
    critic_network: Any = nested(lambda: Torso(activation="relu"))
    unrelated: OnlyForTypeCheckers = field(default=None)
    gamma: float = declare(0.99, fraction)
    ent_coef: float = declare(0.0, non_negative)
    epochs: int = declare(4, at_least(1))
    autotune: bool = declare(True)
    mode: Literal["fast", "exact", 2] = declare("fast")
    clip: float | None = declare(None, positive)
    bounds: tuple[float, int] = declare((0.5, 2))
    names: tuple[str, ...] = declare(("x", "y"))


@dataclass(frozen=True)
class Child(Hyperparams):
    tau: float = declare(0.01)


NAMES = [
    "actor_lr",
    "actor_network.layer_sizes",
    "actor_network.activation",
    "critic_network.layer_sizes",
    "critic_network.activation",
    *("gamma", "ent_coef", "epochs", "autotune", "mode", "clip", "bounds", "names"),
]


def test_declarations_are_listed_by_dotted_name_in_order():
    found = declarations(Hyperparams)
    assert list(found) == NAMES
    lr = found["actor_lr"]
    assert (lr.name, lr.type, lr.default, lr.kind) == ("actor_lr", float, 3e-4, "scalar")
    assert (lr.distribution, lr.description) == (LogUniform(1e-5, 1e-3), "step size of the actor")
    layers = found["actor_network.layer_sizes"]
    assert (layers.type, layers.kind) == (tuple[int, ...], "structural")
    assert found["critic_network.activation"].default == "relu"
    assert list(declarations(Child)) == [*NAMES, "tau"]
    with pytest.raises(FrozenInstanceError):
        lr.default = 1.0


def test_an_instance_declares_the_networks_and_defaults_that_it_holds():
    found = declarations(Hyperparams(actor_lr=1e-4, actor_network=Other(7), critic_network=None))
    assert found["actor_lr"].default == 1e-4
    assert found["actor_network.n_layers"].default == 7
    assert not any(name.startswith("critic_network") for name in found)


def test_flatten_and_space():
    assert flatten(Hyperparams(epochs=2))["epochs"] == 2
    assert list(flatten(Hyperparams())) == NAMES
    # What is fixed is not drawn: a sweep leaves it as the recipe has it.
    assert list(space(Hyperparams)) == ["actor_lr", "actor_network.layer_sizes", "critic_network.layer_sizes"]
    assert space(Hyperparams)["actor_network.layer_sizes"] == Categorical(((32, 32), (64, 64)))


def test_replace():
    before = Hyperparams(critic_network=Other())
    after = replace(before, {"actor_network.layer_sizes": [8, 4], "critic_network.n_layers": "3", "gamma": 1})
    assert after == Hyperparams(actor_network=Torso((8, 4)), critic_network=Other(3), gamma=1.0)
    assert before == Hyperparams(critic_network=Other())
    assert replace(after, {}) == after
    assert replace(after, flatten(after)) == after
    assert type(replace(Child(), {"tau": 1})) is Child


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("actor_lr", "3e-4", 3e-4),
        ("actor_lr", 1, 1.0),
        ("actor_lr", np.float64(0.1), 0.1),
        ("actor_lr", np.array(0.25), 0.25),
        ("epochs", 4.0, 4),
        ("epochs", "4.0", 4),
        ("epochs", "1e5", 100_000),
        ("epochs", np.int64(3), 3),
        ("epochs", str(2**31 - 1), 2**31 - 1),
        ("autotune", "True", True),
        ("autotune", "false", False),
        ("autotune", " FALSE ", False),
        ("autotune", 0, False),
        ("autotune", "1", True),
        ("autotune", np.bool_(True), True),
        ("actor_network.layer_sizes", "[64, 64]", (64, 64)),
        ("actor_network.layer_sizes", "(64,)", (64,)),
        ("actor_network.layer_sizes", [64.0, "32"], (64, 32)),
        ("actor_network.layer_sizes", np.array([3, 4]), (3, 4)),
        ("actor_network.layer_sizes", "[]", ()),
        ("actor_network.activation", " relu ", "relu"),
        ("mode", "exact", "exact"),
        ("mode", "2", 2),
        ("clip", "None", None),
        ("clip", None, None),
        ("clip", "0.5", 0.5),
        ("bounds", "[1, 2]", (1.0, 2)),
        ("names", '["a, b", "c"]', ("a, b", "c")),
        ("names", "['a', 'b']", ("a", "b")),
    ],
)
def test_values_are_read_as_the_declared_type(name, value, expected):
    got = flatten(replace(Hyperparams(), {name: value}))[name]
    assert got == expected
    assert type(got) is type(expected)


INTEGERS = "a list of integers such as [64, 64], each 1 or more"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actor_lr", 0, "got 0; accepted: a finite float32, greater than 0"),
        ("actor_lr", "abc", "got 'abc'; accepted: a finite float32, greater than 0"),
        ("actor_lr", math.nan, "got nan; accepted: a finite float32, greater than 0"),
        ("actor_lr", "inf", "got 'inf'; accepted: a finite float32, greater than 0"),
        ("actor_lr", 10**400, f"got 1{'0' * 78}…; accepted: a finite float32, greater than 0"),
        ("actor_lr", True, "got True; accepted: a finite float32, greater than 0"),
        ("actor_lr", None, "got None; accepted: a finite float32, greater than 0"),
        ("actor_lr", [1.0], "got [1.0]; accepted: a finite float32, greater than 0"),
        ("actor_lr", "a\nb", r"got 'a\nb'; accepted: a finite float32, greater than 0"),
        ("gamma", 1.5, "got 1.5; accepted: a finite float32, from 0 to 1"),
        ("ent_coef", -1e-9, "got -1e-09; accepted: a finite float32, 0 or more"),
        ("epochs", 2.5, "got 2.5; accepted: an int32, 1 or more"),
        ("epochs", 0, "got 0; accepted: an int32, 1 or more"),
        ("epochs", 2**31, "got 2147483648; accepted: an int32, 1 or more"),
        ("gamma", 1e-50, "got 1e-50; accepted: a finite float32, from 0 to 1"),
        ("actor_lr", 1e39, "got 1e+39; accepted: a finite float32, greater than 0"),
        ("epochs", False, "got False; accepted: an int32, 1 or more"),
        ("autotune", "yes", "got 'yes'; accepted: True or False"),
        ("autotune", 2, "got 2; accepted: True or False"),
        ("actor_network.layer_sizes", "64, x", f"got '64, x'; accepted: {INTEGERS}"),
        ("actor_network.layer_sizes", 64, f"got 64; accepted: {INTEGERS}"),
        ("actor_network.layer_sizes", [64, 0], f"got [64, 0]; accepted: {INTEGERS}"),
        ("actor_network.layer_sizes", [[64]], f"got [[64]]; accepted: {INTEGERS}"),
        ("actor_network.layer_sizes", "(" * 9000, f"got '{'(' * 78}…; accepted: {INTEGERS}"),
        ("actor_network.activation", "tan", "got 'tan'; accepted: text, one of tanh, relu"),
        ("actor_network.activation", " ", "got ' '; accepted: text, one of tanh, relu"),
        ("actor_network.activation", 3, "got 3; accepted: text, one of tanh, relu"),
        ("mode", "slow", "got 'slow'; accepted: one of fast, exact, 2"),
        ("clip", 0, "got 0; accepted: a finite float32 or None, greater than 0"),
        ("bounds", [1.0], "got [1.0]; accepted: a list of 2: a finite float32, an int32"),
        ("names", [1], "got [1]; accepted: a list of entries that are text"),
    ],
)
def test_what_is_not_accepted_is_named_with_what_is(name, value, message):
    with pytest.raises(UserError) as caught:
        replace(Hyperparams(), {name: value})
    assert str(caught.value) == f"hyperparameter {name} {message}"


def test_an_integer_that_python_does_not_write():
    with pytest.raises(
        UserError, match="hyperparameter actor_lr got a value too long to show; accepted: a finite float32"
    ):
        replace(Hyperparams(), {"actor_lr": 10**5000})


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown hyperparameter 'actor_rl': did you mean actor_lr"):
        replace(Hyperparams(), {"actor_rl": 1e-3})
    with pytest.raises(UserError, match=r"did you mean actor_network\.layer_sizes"):
        replace(Hyperparams(), {"actor_network.layer_size": [1]})
    with pytest.raises(UserError, match="unknown hyperparameter 'actor_network'"):
        replace(Hyperparams(), {"actor_network": Torso()})


def test_a_plain_function_can_be_a_check():
    def even(value: int) -> bool:
        return value % 2 == 0

    @dataclass(frozen=True)
    class Pair:
        n: int = hyperparameter(2, Uniform(0, 1), kind="structural", description="a test", check=even)

    assert replace(Pair(), {"n": 4}) == Pair(4)
    with pytest.raises(UserError, match="hyperparameter n got 3; accepted: an int32, even"):
        replace(Pair(), {"n": 3})


def test_wrong_declarations_are_bugs():
    with pytest.raises(ValueError, match="kind is 'static'"):
        hyperparameter(1, Fixed(1), kind="static", description="a test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a description"):
        hyperparameter(1, Fixed(1), kind="scalar", description="")

    @dataclass(frozen=True)
    class Mapped:
        table: dict[str, int] = hyperparameter(None, Fixed(None), kind="scalar", description="a test")

    with pytest.raises(TypeError, match="not a type a hyperparameter can have"):
        replace(Mapped(), {"table": {}})
