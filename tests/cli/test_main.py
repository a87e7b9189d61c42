"""Exit codes, error lines and help of the command line as a whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hyperlax
from hyperlax.cli import main

SWEEP = ["sweep-hp-samples", "--algo-and-network-config", "ppo_mlp", "--env-config", "gymnax.cartpole"]
COMMANDS = [
    "run-single-hp", "sweep-hp-samples", "generate-hp-samples", "circuit-gradients", "circuit-expressibility", "list",
    "show", "draw-circuit", "export-circuit",
]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run-single"], "no such command 'run-single': did you mean run-single-hp?"),
        ([*SWEEP, "--num-sample", "3"], "no such option --num-sample: did you mean --num-samples?"),
        ([*SWEEP, "--seed", "x"], "--seed x: must be a valid integer"),
        ([*SWEEP, "--num-samples", "3.5"], "--num-samples 3.5: must be a valid integer"),
        ([*SWEEP, "--num-devices"], "option --num-devices needs a value"),
        ([*SWEEP, "--sequential", "perhaps"], "option --sequential: 'perhaps' is not a boolean, accepted: true, false"),
        ([*SWEEP, "--log-level", "loud"], "unknown --log-level 'loud': accepted: DEBUG, ERROR, INFO, WARNING"),
        ([*SWEEP, "--memory-limit-gib", "0"], "--memory-limit-gib 0: accepted is a positive number"),
        ([*SWEEP, "--set", "gamma"], "--set gamma: accepted is NAME=VALUE, for example gamma=0.97"),
        (
            [*SWEEP, "--experiment-type", "sobol_matrices"],
            "unknown experiment type 'sobol_matrices': did you mean sobol_matrices_A_B_AB?",
        ),
        (["sweep-hp-samples"], "missing --algo-and-network-config (see `hyperlax sweep-hp-samples --help`)"),
        (["list", "recipe"], "unknown list 'recipe': did you mean recipes?"),
        (["list", "recipes", "samplers"], "unexpected argument 'samplers' after recipes"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {message}\n"


@pytest.mark.parametrize("number", ["-3", "0"])
def test_numbers_out_of_range_are_named_with_their_option(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--num-samples", number]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: --num-samples {number}: ")
    assert printed.count("\n") == 1


def test_an_existing_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "samples.csv"
    file.write_text("mine")
    argv = ["generate-hp-samples", "--algo-and-network-config", "ppo_mlp", "--output-file"]
    assert main([*argv, str(file)]) == 2
    assert capsys.readouterr().err == f"error: --output-file {file}: exists already, --overwrite replaces it\n"
    assert file.read_text() == "mine"
    assert main([*argv, str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: --output-file {tmp_path}: is a folder\n"


def test_list_prints_one_line_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "environment"
    assert {"gymnax.cartpole", "gymnax.pendulum", "brax.inverted_double_pendulum"} <= set(lines)
    assert main(["list", "samplers"]) == 0
    assert "qmc_sobol" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: hyperlax {command}" in printed
    assert f"\n    hyperlax {command} " in printed


def test_no_arguments_print_help_and_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    help_text = capsys.readouterr().out
    assert all(f"\n  {command} " in help_text for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hyperlax {hyperlax.__version__}\n"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        hyperlax.sweeep  # noqa: B018


def test_public_names_are_listed_without_importing_them() -> None:
    assert set(hyperlax.__all__) <= set(dir(hyperlax))


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_the_process_ends_with_the_exit_code() -> None:
    refused = _python("-m", "hyperlax", "frobnicate")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: no such command 'frobnicate'")
    assert _python("-m", "hyperlax", "--version").returncode == 0
    script = _python(str(Path(hyperlax.__path__[0]) / "cli.py"), "--version")  # as hyperlax-quantum is called
    assert (script.returncode, script.stdout) == (0, f"hyperlax {hyperlax.__version__}\n")


def test_help_imports_nothing_that_is_slow() -> None:
    program = (
        "import sys; from hyperlax.cli import main; code = main(['sweep-hp-samples', '--help']);"
        "slow = {'jax', 'numpy', 'pandas', 'gymnax', 'matplotlib', 'scipy'} & set(sys.modules);"
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    done = _python("-c", program)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_takes_less_than_half_a_second() -> None:
    def seconds() -> float:
        before = os.times()
        _python("-m", "hyperlax", "--help")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # Processor time, and the least of several: other tests run beside this one. The first fills the byte code's cache.
    assert min(seconds() for _ in range(4)) < 0.5


def test_a_failure_of_the_machine_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results/run.json")

    monkeypatch.setattr("hyperlax.launch.launchers.check_launcher", full)
    assert main(["run-benchmark"]) == 1
    assert capsys.readouterr().err == "error: 'results/run.json': No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_the_process_and_waits_for_no_thread(name: str, code: int) -> None:
    source = (
        "import os, signal, sys, threading, time; from hyperlax.cli import app, program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have been told to ignore it\n"
        "@app.command('wait')\n"
        "def wait() -> None:\n"
        "    threading.Thread(target=time.sleep, args=[1000]).start()\n"
        f"    os.kill(os.getpid(), signal.{name}); time.sleep(1000)\n"
        "sys.argv = ['hyperlax', 'wait']; program()"
    )
    done = _python("-c", source)
    assert (done.returncode, done.stderr) == (code, "")
