"""The commands that study circuits: what they print and write, and what they refuse."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hyperlax.cli import main
from hyperlax.networks.pqc import studied
from hyperlax.quantum import expressibility, gradient_variance

SMALL = ["--n-layers", "1", "2", "--n-qubits", "2", "3"]


def test_gradients_are_printed_and_written(tmp_path, capsys):
    """What the library computes, in every file; a second run is refused."""
    argv = ["circuit-gradients", "hepqc", *SMALL, "--num-samples", "20", "--seed", "3", "--set", "entangler=cnot"]
    argv += ["--observables", "zz", "global", "--output", str(tmp_path / "new" / "here")]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "new" / "here"
    table, decay = (pd.read_csv(folder / name) for name in ("gradients.csv", "decay.csv"))
    family = studied("hepqc", {"entangler": "cnot"})
    expected = gradient_variance.study(family.sized, [1, 2], [2, 3], ["zz", "global"], 20, "uniform", 3)
    pd.testing.assert_frame_equal(table, expected)
    pd.testing.assert_frame_equal(decay, gradient_variance.decay(expected))
    assert (folder / "gradients.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["hyperparameters"] == {"rotations": "yz", "entangler": "cnot", "pattern": "ring"}
    assert [settings[name] for name in ("n_qubits", "num_samples", "seed")] == [[2, 3], 20, 3]
    lines = [line.split() for line in printed.splitlines()]
    first, fit = table.iloc[0], decay.iloc[0]
    assert lines[1][:5] == ["1", "2", "zz", str(first["parameter"]), f"{first['variance']:.2e}"]
    assert [fit["observable"], "1", f"{fit['factor']:.3f}"] in [line[:3] for line in lines]
    assert main(argv) == 2
    assert capsys.readouterr().err == (
        f"error: --output {folder}: gradients.csv exists there already, name another directory\n"
    )


def test_expressibility_is_printed_and_written(tmp_path, capsys):
    argv = ["circuit-expressibility", "drpqc", *SMALL, "--num-samples", "30", "--num-bins", "20"]
    assert main([*argv, "--initial", "family", "--output", str(tmp_path)]) == 0  # a folder without results may exist
    table = pd.read_csv(tmp_path / "expressibility.csv")
    expected = expressibility.study(studied("drpqc", {}).sized, [1, 2], [2, 3], 30, 20, "family")
    pd.testing.assert_frame_equal(table, expected)
    assert (tmp_path / "expressibility.png").read_bytes().startswith(b"\x89PNG")
    assert f"  {table['divergence'][3]:.4f}  " in capsys.readouterr().out.splitlines()[4]


def test_nothing_is_written_unless_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["circuit-gradients", "hepqc", "--n-layers", "1", "--n-qubits", "2", "--num-samples", "2"]) == 0
    assert "Fits" not in capsys.readouterr().out  # of one width
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["circuit-gradients", "circuit-expressibility"])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["heqpc"], "unknown network of circuits 'heqpc': did you mean hepqc?"),
        (["mlp"], "network 'mlp' is no circuit: accepted: drpqc, hepqc"),
        (["hepqc", "--n-layers", "0", "5"], "n_layers 0: accepted is 1 or more"),
        (["hepqc", "--n-layers", "x", "5"], "--n-layers x: accepted are whole numbers"),
        (["hepqc", "--n-qubits", "2", "30"], "n_qubits 30: accepted is 1 … 16"),
        (["hepqc", "--initial", "zero"], "unknown initial 'zero': accepted: family, uniform"),
        (
            ["hepqc", "--set", "n_layers=3"],
            "hyperparameter n_layers: not accepted here, a study of circuits varies or ignores it",
        ),
        (["hepqc", "--set", "entangler=swap"], "hyperparameter entangler got 'swap'; accepted: text, one of cnot, cz"),
        (["drpqc", "--set", "n_vstack=4"], "n_qubits 2 with n_vstack 4: accepted are multiples of n_vstack"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, argv, message, capsys):
    assert main([command, *argv]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {message}\n")


def test_bad_input_to_one_command(tmp_path, capsys):
    for argv, message in (
        (["circuit-gradients", "hepqc", "--observables", "single", "xx"], "unknown observable 'xx': accepted: "),
        (["circuit-gradients", "hepqc", "--num-samples", "1"], "num_samples 1: accepted is 2 … "),
        (["circuit-expressibility", "drpqc", "--num-samples", "1"], "num_samples 1: accepted is 2 … "),
        (["circuit-expressibility", "drpqc", "--num-bins", "1"], "num_bins 1: accepted is 2 … 1000000"),
    ):
        assert main([*argv, "--output", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"error: {message}") and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    assert main(["circuit-gradients", "hepqc", "--output", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err
