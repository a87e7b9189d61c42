"""What the values of shared options mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperlax.cli import options
from hyperlax.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("quick", "quick"), ("default", "default"), ("long", "long"), ("50000", 50_000), ("1e6", 10**6), ("1_000", 1_000)],
)
def test_run_length(text: str, expected: str | int) -> None:
    assert options.run_length(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "inf", "1e300"])
def test_run_length_is_a_positive_whole_number(text: str) -> None:
    with pytest.raises(UserError, match=f"--run-length-modifier {text}"):
        options.run_length(text)


@pytest.mark.parametrize(("text", "expected"), [("auto", "auto"), ("1", 1), ("64", 64)])
def test_batch_size(text: str, expected: str | int) -> None:
    assert options.batch_size(text) == expected


@pytest.mark.parametrize("text", ["0", "-4", "4.0", "Auto", "", "²"])
def test_batch_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--hparam-batch-size"):
        options.batch_size(text)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_positive_numbers(value: float) -> None:
    assert options.positive("--memory-limit-gib", 1.5) == 1.5
    assert options.positive("--memory-limit-gib", None) is None
    with pytest.raises(UserError, match="--memory-limit-gib"):
        options.positive("--memory-limit-gib", value)


def test_overrides_keep_the_text_of_their_values() -> None:
    assert options.overrides(None) == {}
    assert options.overrides(["gamma=0.9", "actor_network.layer_sizes=[64, 64]", "note=a=b"]) == {
        "gamma": "0.9",
        "actor_network.layer_sizes": "[64, 64]",
        "note": "a=b",
    }


@pytest.mark.parametrize("assignments", [["gamma"], ["=3"], [""], ["gamma=1", "gamma=2"]])
def test_overrides_are_refused(assignments: list[str]) -> None:
    with pytest.raises(UserError, match="--set"):
        options.overrides(assignments)


@pytest.fixture
def _logger() -> Iterator[None]:
    logger = logging.getLogger("hyperlax")
    before = logger.handlers, logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


@pytest.mark.usefixtures("_logger")
def test_the_log_goes_to_stderr_and_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = options.log_file(tmp_path, "sweep-hp-samples")
    options.configure_logging("info", file)
    logging.getLogger("hyperlax.engine").info("compiled 3 programs")
    logging.getLogger("hyperlax.engine").debug("too much")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("INFO compiled 3 programs\n")
    assert file.read_text() == printed.err


@pytest.mark.usefixtures("_logger")
def test_log_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown --log-level 'loud': accepted: DEBUG, ERROR, INFO, WARNING"):
        options.configure_logging("loud")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--save-logs"):
        options.configure_logging("INFO", tmp_path / "file" / "log")
