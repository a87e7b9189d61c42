"""Several values after one option, values after booleans, and the refusals on the way."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typer

from hyperlax.cli import app as hyperlax_app
from hyperlax.cli.arguments import is_option, normalise
from hyperlax.errors import UserError

app = typer.Typer(add_completion=False)


@app.command("run-benchmark")
def _run_benchmark(
    algos: Annotated[list[str], typer.Option("--algos", "-a")],
    shifts: Annotated[list[float] | None, typer.Option("--shifts")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    sequential: Annotated[bool, typer.Option("--sequential/--no-sequential")] = False,
    plot: Annotated[bool, typer.Option("--plot/--no-plot")] = True,
) -> None:
    """A command with options of every kind."""


@app.command("show")
def _show(recipe: str, wide: Annotated[bool, typer.Option("--wide/--no-wide")] = False) -> None:
    """A command with an argument."""


PROGRAM: Any = typer.main.get_command(app)


def _rewritten(line: str) -> str:
    return " ".join(normalise(PROGRAM, line.split()))


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("run-benchmark --algos a", "run-benchmark --algos a"),
        ("run-benchmark --algos a b c", "run-benchmark --algos a --algos b --algos c"),
        ("run-benchmark --algos a b --seed 3", "run-benchmark --algos a --algos b --seed 3"),
        ("run-benchmark --algos a --algos b c", "run-benchmark --algos a --algos b --algos c"),
        ("run-benchmark -a a b", "run-benchmark -a a -a b"),
        ("run-benchmark --algos=a --seed=3", "run-benchmark --algos a --seed 3"),
        ("run-benchmark --algos a=1 b==2", "run-benchmark --algos a=1 --algos b==2"),
        (
            "run-benchmark --shifts -1 -.5 -inf 2e-3",
            "run-benchmark --shifts -1 --shifts -.5 --shifts -inf --shifts 2e-3",
        ),
        ("run-benchmark --seed -3", "run-benchmark --seed -3"),
        ("run-benchmark --seed=-3", "run-benchmark --seed -3"),
    ],
)
def test_options_with_values(typed: str, parsed: str) -> None:
    assert _rewritten(typed) == parsed


@pytest.mark.parametrize("true", ["", " True", " true", " TRUE", " yes", " on", " 1", "=True", "=1"])
def test_a_boolean_may_say_that_it_is_true(true: str) -> None:
    assert _rewritten(f"run-benchmark --sequential{true} --seed 1") == "run-benchmark --sequential --seed 1"
    assert _rewritten(f"run-benchmark --no-plot{true} --seed 1") == "run-benchmark --no-plot --seed 1"


@pytest.mark.parametrize("false", [" False", " false", " no", " off", " 0", "=False"])
def test_a_boolean_may_say_that_it_is_false(false: str) -> None:
    assert _rewritten(f"run-benchmark --sequential{false}") == "run-benchmark --no-sequential"
    assert _rewritten(f"run-benchmark --no-sequential{false}") == "run-benchmark --sequential"
    assert _rewritten(f"run-benchmark --plot{false} --algos a") == "run-benchmark --no-plot --algos a"


def test_a_word_after_a_boolean_is_an_argument_where_the_command_takes_one() -> None:
    assert _rewritten("show --wide ppo_mlp") == "show --wide ppo_mlp"
    assert _rewritten("show --wide false ppo_mlp") == "show --no-wide ppo_mlp"
    assert _rewritten("show ppo_mlp --wide") == "show ppo_mlp --wide"


@pytest.mark.parametrize(
    ("typed", "parsed"), [("", "--help"), ("--help", "--help"), ("show --wide --help", "show --help")]
)
def test_help_is_reached_from_anywhere(typed: str, parsed: str) -> None:
    assert _rewritten(typed) == parsed


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("benchmark", "no such command 'benchmark': did you mean run-benchmark?"),
        ("xyz", "no such command 'xyz': accepted: run-benchmark, show"),
        ("run", "no such command 'run': did you mean run-benchmark?"),
        ("run-benchmark --algo a", "no such option --algo: did you mean --algos?"),
        ("run-benchmark --sequentail", "no such option --sequentail: did you mean --sequential or --no-sequential?"),
        ("run-benchmark --algo=a", "no such option --algo: did you mean --algos?"),
        ("run-benchmark --num_seeds 3", "no such option --num_seeds: did you mean --seed?"),
        ("run-benchmark --seed", "option --seed needs a value"),
        ("run-benchmark --seed --algos a", "option --seed needs a value, got --algos"),
        ("run-benchmark --algos", "option --algos needs a value"),
        ("run-benchmark --seed 1 2", "unexpected argument '2' after 1"),
        ("run-benchmark stray", "unexpected argument 'stray'"),
        ("show a b", "unexpected argument 'b' after a"),
        ("run-benchmark --sequential maybe", "option --sequential: 'maybe' is not a boolean, accepted: true, false"),
        ("show --wide=maybe a", "option --wide: 'maybe' is not a boolean, accepted: true, false"),
        ("--verison", "no such option --verison: accepted: --help"),
    ],
)
def test_refusals(typed: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        _rewritten(typed)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("word", "expected"),
    [("--seed", True), ("-a", True), ("-", False), ("", False), ("a", False), ("-1", False), ("-1e-3", False)],
)
def test_options_are_told_from_values(word: str, expected: bool) -> None:
    assert is_option(word) is expected


def test_every_boolean_option_can_be_switched_both_ways() -> None:
    program: Any = typer.main.get_command(hyperlax_app)
    flags = [
        option
        for command in program.commands.values()
        for option in command.params
        if getattr(option, "is_flag", False)
    ]
    assert flags
    assert all(flag.secondary_opts for flag in flags)
