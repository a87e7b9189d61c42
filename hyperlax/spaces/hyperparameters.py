"""The one place a hyperparameter is declared, and how a value from outside becomes a checked one.

    @dataclass(frozen=True)
    class Hyperparams:
        actor_lr: float = hyperparameter(
            3e-4, LogUniform(1e-5, 1e-3), kind="scalar", description="Adam step size of the actor", check=positive
        )
        actor_network: MLP = nested(MLP)

A name is dotted where dataclasses are nested: ``actor_network.layer_sizes``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from hyperlax.errors import UserError, unknown
from hyperlax.spaces.distributions import Distribution, Fixed, plain, show

Kind = Literal["scalar", "structural"]
T = TypeVar("T")

_DECLARATION = "hyperlax.hyperparameter"
_NESTED = "hyperlax.nested"


@dataclass(frozen=True)
class Check:
    """A bound on a value, and the words for it in an error message.

    Attributes:
        holds: whether a value of the declared type is within the bound.
        accepted: completes "accepted: a finite float32, …".
    """

    holds: Callable[[Any], bool]
    accepted: str

    def __call__(self, value: Any) -> bool:
        """Whether the bound holds."""
        return self.holds(value)


positive = Check(lambda value: value > 0, "greater than 0")
non_negative = Check(lambda value: value >= 0, "0 or more")
fraction = Check(lambda value: 0 <= value <= 1, "from 0 to 1")


def at_least(bound: float) -> Check:
    """Values not smaller than ``bound``."""
    return Check(lambda value: value >= bound, f"{bound} or more")


rate = Check(lambda value: 0 < value <= 1, "greater than 0, up to 1")


def one_of(*choices: object) -> Check:
    """The given values and no others."""
    return Check(lambda value: value in choices, f"one of {', '.join(map(show, choices))}")


def each(check: Check) -> Check:
    """Lists every entry of which passes ``check``."""
    return Check(lambda values: all(map(check, values)), f"each {check.accepted}")


@dataclass(frozen=True)
class Declaration:
    """Everything known about one hyperparameter.

    Attributes:
        name: dotted name.
        type: declared type, for example ``float`` or ``tuple[int, ...]``.
        default: value unless another is given.
        distribution: what a search draws it from by default; other values are allowed too.
        kind: ``"scalar"`` if it is only a traced value, ``"structural"`` if it bounds a loop or an array.
        description: one line for the user.
        check: bound that every value but None must pass.
    """

    name: str
    type: Any
    default: Any
    distribution: Distribution
    kind: Kind
    description: str
    check: Callable[[Any], bool] | None = None

    @property
    def accepted(self) -> str:
        """The accepted values in words, for example ``an int32, 1 or more``."""
        words = _describe_type(self.type)
        if self.check is None:
            return words
        return f"{words}, {getattr(self.check, 'accepted', getattr(self.check, '__name__', 'within its check'))}"

    def parse(self, value: object) -> Any:
        """Returns ``value`` as the declared type; text such as ``"[64, 64]"`` or ``"3e-4"`` is read.

        Raises:
            UserError: if it is not of that type, not finite, or out of bounds.
        """
        try:
            parsed = _coerce(plain(value), self.type)
            if parsed is None or self.check is None or self.check(parsed):
                return parsed
        except _NotOfThisType:
            pass
        raise UserError(f"hyperparameter {self.name} got {shorten(value)}; accepted: {self.accepted}")


def hyperparameter(
    default: Any,
    distribution: Distribution,
    *,
    kind: Kind,
    description: str,
    check: Callable[[Any], bool] | None = None,
) -> Any:
    """Declares a hyperparameter as a dataclass field; see :class:`Declaration` for the arguments."""
    if kind not in typing.get_args(Kind):
        raise ValueError(f"kind is {kind!r}: scalar or structural")
    if not description:
        raise ValueError("a hyperparameter needs a description")
    # Name and type belong to the dataclass, which does not exist yet; `declarations` fills them in.
    declaration = Declaration("", None, default, distribution, kind, description, check)
    return dataclasses.field(default=default, metadata={_DECLARATION: declaration})


def nested(default_factory: Callable[[], Any]) -> Any:
    """Declares a field holding another dataclass, such as a network, whose hyperparameters count as well."""
    return dataclasses.field(default_factory=default_factory, metadata={_NESTED: True})


def declarations(cls_or_instance: Any) -> dict[str, Declaration]:
    """Every hyperparameter by dotted name, in the order of the fields.

    The ``default`` of each is the value the instance holds; for a class, that of ``cls()``.
    """
    instance = cls_or_instance() if isinstance(cls_or_instance, type) else cls_or_instance
    return {
        name: dataclasses.replace(
            field.metadata[_DECLARATION], name=name, type=_field_type(owner, field.name), default=value
        )
        for name, owner, field, value in _walk(instance, "")
    }


def flatten(instance: Any) -> dict[str, Any]:
    """The values an instance holds, by dotted name."""
    return {name: value for name, _, _, value in _walk(instance, "")}


def space(cls_or_instance: Any) -> dict[str, Distribution]:
    """The declared distribution of every hyperparameter that has a choice, by dotted name; the others keep theirs."""
    declared = {name: declaration.distribution for name, declaration in declarations(cls_or_instance).items()}
    return {name: distribution for name, distribution in declared.items() if not isinstance(distribution, Fixed)}


def replace(instance: T, values: Mapping[str, object]) -> T:
    """Returns a copy with other values, given by dotted name and parsed as their declared types.

    ``replace(x, flatten(x))`` checks every value that ``x`` holds.

    Raises:
        UserError: if a name is not a hyperparameter, or a value is not accepted.
    """
    known = declarations(instance)
    for name in values:
        if name not in known:
            raise unknown("hyperparameter", name, known, hint="(hyperlax show RECIPE names all)")
    parsed = {name: known[name].parse(value) for name, value in values.items()}
    return typing.cast(T, _rebuild(instance, parsed, ""))


def shorten(value: object, width: int = 80) -> str:
    """The value on one line of bounded length, for an error message."""
    try:
        text = repr(value) if isinstance(value, str) else show(value).replace("\n", " ")
    except ValueError:  # Python writes no integers of thousands of digits
        text = "a value too long to show"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _walk(instance: Any, prefix: str) -> Iterator[tuple[str, type, dataclasses.Field[Any], Any]]:
    """Yields dotted name, class, field and value of every hyperparameter."""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name, None)
        if _DECLARATION in field.metadata:
            yield prefix + field.name, type(instance), field, value
        elif _NESTED in field.metadata and value is not None:
            yield from _walk(value, f"{prefix}{field.name}.")


def _rebuild(instance: Any, values: Mapping[str, Any], prefix: str) -> Any:
    changes = {}
    for field in dataclasses.fields(instance):
        name = prefix + field.name
        if name in values:
            changes[field.name] = values[name]
        elif any(changed.startswith(f"{name}.") for changed in values):
            changes[field.name] = _rebuild(getattr(instance, field.name), values, f"{name}.")
    return dataclasses.replace(instance, **changes)


@functools.cache
def _field_type(cls: type, name: str) -> Any:
    """The type of one field; alone, as an annotation only a type checker can resolve must not spoil the others."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    alone = types.SimpleNamespace(__annotations__={name: inspect.get_annotations(owner)[name]})
    return typing.get_type_hints(alone, globalns=vars(sys.modules[owner.__module__]))[name]


class _NotOfThisType(Exception):
    pass


def _coerce(value: Any, declared: Any) -> Any:
    """Returns ``value`` as ``declared``; raises _NotOfThisType if it is none."""
    origin = typing.get_origin(declared)
    if origin is Literal:
        return _coerce_literal(value, typing.get_args(declared))
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, typing.get_args(declared))
    if declared is tuple or origin is tuple:
        return _coerce_tuple(value, typing.get_args(declared))
    if declared in _SCALARS:
        return _SCALARS[declared](value)
    raise TypeError(f"{declared!r} is not a type a hyperparameter can have")


def _coerce_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if isinstance(value, Real) and value in (0, 1):
        return bool(value)
    raise _NotOfThisType


def _coerce_int(value: Any) -> int:
    """A whole number that fits 32 bits, as a lane has them."""
    number = _whole(value)
    if not -(2**31) <= number < 2**31:
        raise _NotOfThisType
    return number


def _whole(value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)  # before float, which is not exact beyond 2**53
        except ValueError:
            pass
    number = _coerce_float(value)
    if number.is_integer():
        return int(number)
    raise _NotOfThisType


_LARGEST, _SMALLEST = 3.4028234663852886e38, 1.1754943508222875e-38  # of 32 bits, as a lane has them


def _coerce_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real | str):
        raise _NotOfThisType
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise _NotOfThisType from error
    if not math.isfinite(number) or abs(number) > _LARGEST or 0 < abs(number) < _SMALLEST:
        raise _NotOfThisType
    return number


def _coerce_str(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _NotOfThisType


def _coerce_none(value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.strip().lower() in ("none", "null")):
        raise _NotOfThisType


def _coerce_tuple(value: Any, entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """``entries`` are the arguments of the tuple type: ``(int, ...)`` or one type an entry."""
    if isinstance(value, str):
        value = _read_list(value)
    if not isinstance(value, list | tuple):
        raise _NotOfThisType
    if len(entries) == 2 and entries[1] is Ellipsis:
        entries = (entries[0],) * len(value)
    if len(entries) != len(value):
        raise _NotOfThisType
    return tuple(_coerce(entry, declared) for entry, declared in zip(value, entries, strict=True))


def _read_list(text: str) -> Any:
    """A list as JSON writes it, or as Python writes a list or tuple."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _NotOfThisType from error


def _coerce_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        try:
            if _coerce(value, type(choice)) == choice:
                return choice
        except _NotOfThisType:
            pass
    raise _NotOfThisType


def _coerce_union(value: Any, members: tuple[Any, ...]) -> Any:
    """The first member that accepts the value; None before text, which would accept the word."""
    for member in sorted(members, key=lambda member: member is not type(None)):
        try:
            return _coerce(value, member)
        except _NotOfThisType:
            pass
    raise _NotOfThisType


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _coerce_bool,
    int: _coerce_int,
    float: _coerce_float,
    str: _coerce_str,
    type(None): _coerce_none,
}
_WORDS = {
    bool: "True or False",
    int: "an int32",
    float: "a finite float32",
    str: "text",
    type(None): "None",
}


def _describe_type(declared: Any) -> str:
    """The accepted values of a type in words."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe_type, arguments))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        entries = {int: "integers such as [64, 64]", float: "finite numbers", bool: "True and False"}
        return f"a list of {entries.get(arguments[0], f'entries that are {_describe_type(arguments[0])}')}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_describe_type, arguments))}"
    return _WORDS.get(declared, str(declared))
