"""Sample files: exact round trips, the published tables as they are, and every refusal."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperlax.errors import UserError
from hyperlax.spaces import (
    RESULT_COLUMNS,
    Fixed,
    Sample,
    at_least,
    canonical_name,
    declarations,
    draw,
    each,
    fraction,
    hyperparameter,
    nested,
    positive,
    published_header,
    read_samples,
    space,
    write_samples,
)


def declare(default: Any, check: Any = None) -> Any:
    return hyperparameter(default, Fixed(default), kind="scalar", description="a test", check=check)


@dataclass(frozen=True)
class MLP:
    layer_sizes: tuple[int, ...] = declare((64, 64), each(at_least(1)))
    use_layer_norm: bool = declare(False)
    activation: str = declare("tanh")


@dataclass(frozen=True)
class TMLP:
    hidden_dim: int = declare(64)
    num_nodes_to_decompose: int = declare(6)
    bond_dim: int = declare(4)
    activation: str = declare("tanh")
    num_mpo_layers: int = declare(2)


@dataclass(frozen=True)
class DRPQC:
    n_layers: int = declare(5)
    n_vstack: int = declare(1)


@dataclass(frozen=True)
class Common:
    critic_network: Any = nested(MLP)
    gamma: float = declare(0.99, fraction)
    max_grad_norm: float = declare(0.5, positive)
    total_num_envs: int = declare(1024, at_least(1))
    rollout_length: int = declare(2, at_least(1))
    epochs: int = declare(1, at_least(1))
    normalize_observations: bool = declare(True)


@dataclass(frozen=True)
class PPO(Common):
    actor_network: Any = nested(MLP)
    actor_lr: float = declare(3e-4, positive)
    critic_lr: float = declare(3e-4, positive)
    gae_lambda: float = declare(0.95, fraction)
    clip_eps: float = declare(0.2, positive)
    ent_coef: float = declare(0.01)
    vf_coef: float = declare(0.5)
    num_minibatches: int = declare(128, at_least(1))
    standardize_advantages: bool = declare(True)
    decay_learning_rates: bool = declare(True)


@dataclass(frozen=True)
class OffPolicy(Common):
    tau: float = declare(0.005)
    warmup_rollout_length: int = declare(8)
    total_buffer_size: int = declare(30_000)
    total_batch_size: int = declare(128)


@dataclass(frozen=True)
class DQN(OffPolicy):
    critic_lr: float = declare(3e-4)
    use_double_q: bool = declare(True)
    training_epsilon: float = declare(0.1)
    evaluation_epsilon: float = declare(0.0)
    max_abs_reward: float = declare(1e9)
    huber_loss_parameter: float = declare(0.0)
    decay_learning_rates: bool = declare(True)


@dataclass(frozen=True)
class SAC(OffPolicy):
    actor_network: Any = nested(MLP)
    actor_lr: float = declare(3e-4)
    q_lr: float = declare(3e-4)
    alpha_lr: float = declare(3e-4)
    autotune: bool = declare(True)
    target_entropy_scale: float = declare(0.7)
    init_alpha: float = declare(1.0)


KNOWN = declarations(PPO)

# Two rows of a published table, header and quoting as published.
PUBLISHED = """\
hp id,peak return,peak timestep,final return,auc at budget,stability score,time to target,early learning rate,\
forgetting score,actor network › pre torso › layer sizes,actor network › pre torso › use layer norm,\
actor network › pre torso › activation,critic network › pre torso › layer sizes,\
critic network › pre torso › use layer norm,critic network › pre torso › activation,actor lr,critic lr,gamma,\
gae lambda,clip eps,ent coef,vf coef,max grad norm,rollout length,epochs,num minibatches,total num envs,\
standardize advantages,decay learning rates,normalize observations,sample id
6,500,3506176,318.7,0.6081,0.7183,2.45e+06,0.0001981,0.3626,"[128, 128]",False,tanh,"[128, 128]",False,tanh,\
0.000118,0.0001947,0.9857,0.9363,0.3366,0.0009843,0.6471,0.477,4,4,512,4096,False,False,True,6
10,,4251648,nan,0.8441,0.8836,5e+06,0.0004556,0.1261,"[64, 64]",False,relu,"[32, 32]",True,relu,\
0.0001715,0.0002419,0.98,0.9834,0.4444,7.71e-05,0.941,0.322,2,4,128,2048,False,False,True,10
"""
SIX = {
    "actor_network.layer_sizes": (128, 128),
    "actor_network.use_layer_norm": False,
    "actor_network.activation": "tanh",
    "critic_network.layer_sizes": (128, 128),
    "critic_network.use_layer_norm": False,
    "critic_network.activation": "tanh",
    "actor_lr": 0.000118,
    "critic_lr": 0.0001947,
    "gamma": 0.9857,
    "gae_lambda": 0.9363,
    "clip_eps": 0.3366,
    "ent_coef": 0.0009843,
    "vf_coef": 0.6471,
    "max_grad_norm": 0.477,
    "rollout_length": 4,
    "epochs": 4,
    "num_minibatches": 512,
    "total_num_envs": 4096,
    "standardize_advantages": False,
    "decay_learning_rates": False,
    "normalize_observations": True,
}


def put(folder: Path, text: str | bytes, name: str = "samples.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_names():
    layers = "actor network › pre torso › layer sizes"
    assert canonical_name(layers) == "actor_network.layer_sizes"
    assert canonical_name("algorithm.network.actor_network.pre_torso.layer_sizes") == "actor_network.layer_sizes"
    assert canonical_name("algorithm.hyperparam.gamma") == "gamma"
    assert canonical_name(" actor lr ") == "actor_lr"
    assert published_header("actor_network.layer_sizes") == layers
    assert published_header("actor_lr") == "actor lr"
    for name in [*KNOWN, *RESULT_COLUMNS]:
        assert canonical_name(name) == name
        assert canonical_name(published_header(name)) == name


def test_a_published_table_is_read_as_it_is(tmp_path):
    first, second = read_samples(put(tmp_path, PUBLISHED), KNOWN)
    assert (first.sample_id, dict(first.values)) == (6, SIX)
    assert {name: type(value) for name, value in first.values.items()} == {
        name: type(value) for name, value in SIX.items()
    }
    assert second.sample_id == 10
    assert (second.values["critic_network.layer_sizes"], second.values["ent_coef"]) == ((32, 32), 7.71e-05)


def reference_tables() -> list[Path]:
    beside = Path(__file__).parents[3] / "shared" / "reference" / "hyperlax_published"
    return sorted(Path(os.environ.get("HYPERLAX_REFERENCE", beside)).glob("*.csv"))


@pytest.mark.skipif(not reference_tables(), reason="the published tables are not here (HYPERLAX_REFERENCE)")
@pytest.mark.parametrize("path", reference_tables(), ids=lambda path: path.stem)
def test_the_published_tables(path, tmp_path):
    algorithm, network = path.stem.split("_")[1].split("-")
    cls: Any = {"ppo": PPO, "dqn": DQN, "sac": SAC}[algorithm]
    torso = {"mlp": MLP, "tmlp": TMLP, "drpqc": DRPQC}[network]()
    known = declarations(cls(**{field.name: torso for field in fields(cls) if field.name.endswith("_network")}))
    samples = read_samples(path, known)
    assert sorted(sample.sample_id for sample in samples) == list(range(64))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for sample, row in zip(samples, rows, strict=True):
        assert sample.sample_id == int(row["sample id"])
        assert sample.values.keys() == known.keys()
        for name, value in sample.values.items():
            cell = row[published_header(name)]
            assert value == float(cell) if isinstance(value, float) else str(cell) == written(value)
    copy = tmp_path / "copy.csv"
    write_samples(copy, samples)
    assert read_samples(copy, known) == samples


def written(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "actor_network.layer_sizes": st.lists(st.integers(1, 10**9)).map(tuple),
                "actor_network.use_layer_norm": st.booleans(),
                "actor_network.activation": st.text(min_size=1)
                .map(str.strip)
                .filter(lambda text: text and "\r" not in text),
                "ent_coef": st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32),
                "epochs": st.integers(1, 2**31 - 1),
            }
        ),
        min_size=1,
        max_size=5,
    ).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations([3 * i + 1 for i in range(len(rows))])))
)
def test_what_is_written_is_read_exactly(tmp_path, drawn):
    samples = [Sample(sample_id, values) for values, sample_id in zip(*drawn, strict=True)]
    write_samples(tmp_path / "samples.csv", samples, overwrite=True)
    assert read_samples(tmp_path / "samples.csv", KNOWN) == samples


def test_the_file_as_written(tmp_path):
    path = tmp_path / "samples.csv"
    values = {"actor_lr": np.float64(1e-5), "actor_network.layer_sizes": (64, 64), "normalize_observations": True}
    write_samples(path, [Sample(3, values)])
    assert path.read_text() == (
        'sample_id,actor_lr,actor_network.layer_sizes,normalize_observations\n3,1e-05,"[64, 64]",True\n'
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.csv"]


def test_drawn_samples_survive(tmp_path):
    samples = draw(space(PPO), 5)
    write_samples(tmp_path / "samples.csv", samples)
    assert read_samples(tmp_path / "samples.csv", KNOWN) == samples


def test_writing_replaces_nothing_unasked_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = put(tmp_path, "mine")
    with pytest.raises(UserError, match=r"samples\.csv exists already: give another name or ask to overwrite it"):
        write_samples(path, [Sample(0, {})])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"samples\.csv cannot be written: No space left on device"):
            write_samples(path, [Sample(0, {})], overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        write_samples(tmp_path / "missing" / "samples.csv", [Sample(0, {})])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no samples to write"),
        ([Sample(0, {"a": 1}), Sample(1, {"b": 1})], "do not all name the same hyperparameters"),
        ([Sample(0, {}), Sample(0, {})], "two samples share a sample_id"),
    ],
)
def test_writing_refuses_what_could_not_be_read(tmp_path, samples, message):
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / "samples.csv", samples)


def test_some_columns_are_enough(tmp_path):
    path = put(tmp_path, "\ufeffgamma, critic lr \n0.9,1e-4\n\n0.95, 2e-4\n")
    assert read_samples(path, KNOWN) == [
        Sample(0, {"gamma": 0.9, "critic_lr": 1e-4}),
        Sample(1, {"gamma": 0.95, "critic_lr": 2e-4}),
    ]
    assert read_samples(put(tmp_path, "sample_id\r\n7\r\n3.0\r\n"), KNOWN) == [Sample(7, {}), Sample(3, {})]


def test_our_summary_is_a_sample_file(tmp_path):
    summary = pytest.importorskip("hyperlax.results.summary")
    assert summary.NOT_HYPERPARAMETERS.difference(RESULT_COLUMNS) == {"sample_id"}
    headers = [summary.header_of(name) for name in sorted(summary.NOT_HYPERPARAMETERS)]
    text = ",".join([*headers, "gamma"]) + "\n" + ",".join(["4"] * len(headers) + ["0.5"]) + "\n"
    assert read_samples(put(tmp_path, text), KNOWN) == [Sample(4, {"gamma": 0.5})]


def test_a_hyperparameter_that_shares_the_name_of_a_result_is_read(tmp_path):
    @dataclass(frozen=True)
    class Seeded:
        seeds: int = declare(1)

    assert read_samples(put(tmp_path, "seeds\n4\n"), declarations(Seeded)) == [Sample(0, {"seeds": 4})]


def test_json(tmp_path):
    objects = [
        {"sample_id": 5, "algorithm.hyperparam.gamma": 0.9, "actor_network": {"layer_sizes": [8, 8]}, "status": None},
        {"actor_network": {"layer_sizes": "[4]"}, "algorithm.hyperparam.gamma": "0.8", "sample_id": 2, "status": 1},
    ]
    assert read_samples(put(tmp_path, json.dumps(objects), "samples.JSON"), KNOWN) == [
        Sample(5, {"gamma": 0.9, "actor_network.layer_sizes": (8, 8)}),
        Sample(2, {"gamma": 0.8, "actor_network.layer_sizes": (4,)}),
    ]


ABOVE_ZERO = "accepted: a finite float32, greater than 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "samples file PATH is empty"),
        ("\n \n", "samples file PATH is empty"),
        (b"gamma\n\xff\n", "samples file PATH is not UTF-8 text"),
        ("gamma,actor_lr\n", "PATH: there are no samples in it"),
        ("gamma,actor_lr\n0.9,1e-3\n0.9\n", "PATH, line 3: 1 cells, but 2 columns"),
        ("gamma\n0.9,1e-3\n", "PATH, line 2: 2 cells, but 1 columns"),
        ('gamma\n"0.9\n', "PATH, line 2: not CSV: unexpected end of data"),
        ('gamma\n"0.9"x\n', "PATH, line 2: not CSV: ',' expected after '\"'"),
        ("gamma;actor_lr\n0.9;1e-3\n", "PATH: columns seem to be separated by ';'; accepted: ','"),
        ("gamma\tactor_lr\n0.9\t1e-3\n", r"PATH: columns seem to be separated by '\t'; accepted: ','"),
        ("sample_id,gamma\n4,0.9\n5,0.9\n4,0.8\n", "PATH, line 4: sample_id 4 is taken by line 2 already"),
        (
            "gamma,epochs,algorithm.hyperparam.gamma\n1,1,1\n",
            "PATH: column 'gamma' is there twice, as columns 1 and 3",
        ),
        (",gamma\n0,0.9\n", "PATH: column 1 has no name"),
        ("status,peak return\nCOMPLETED,3\n", "PATH: no column is a hyperparameter or sample_id"),
        (
            "gamma,actor rl\n0.9,1\n",
            "PATH, column 2: unknown hyperparameter 'actor_rl': did you mean actor_lr?",
        ),
        ("gamma,actor lr\n1,1\n1,\n", f"PATH, line 3, column 'actor lr': the value is missing; {ABOVE_ZERO}"),
        ("actor lr\n1\nfast\n", f"PATH, line 3, column 'actor lr': got 'fast'; {ABOVE_ZERO}"),
        ("actor_lr\nnan\n", f"PATH, line 2, column 'actor_lr': got 'nan'; {ABOVE_ZERO}"),
        ("actor_lr\n-1e-3\n", f"PATH, line 2, column 'actor_lr': got '-1e-3'; {ABOVE_ZERO}"),
        (
            "sample id,epochs\nx,1\n",
            "PATH, line 2, column 'sample id': got 'x'; accepted: an int32, 0 or more",
        ),
        (
            "sample_id,epochs\n,1\n",
            "PATH, line 2, column 'sample_id': the value is missing; accepted: an int32, 0 or more",
        ),
        (
            'actor_network.layer_sizes\n"[8,\n 8]"\n"[8, 0]"\n',
            "PATH, line 4, column 'actor_network.layer_sizes': got '[8, 0]'; "
            "accepted: a list of integers such as [64, 64], each 1 or more",
        ),
    ],
)
def test_csv_refusals(tmp_path, text, message):
    path = put(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_samples(path, KNOWN)
    assert str(caught.value) == message.replace("PATH", str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[\n{]", "PATH, line 2: not JSON: Expecting property name enclosed in double quotes"),
        ('{"gamma": 1}', "PATH: accepted is a JSON list of objects, one a sample"),
        ("[1]", "PATH: accepted is a JSON list of objects, one a sample"),
        ("[]", "PATH: there are no samples in it"),
        ('[{"gamma": 1, "gamma": 1}]', "PATH: 'gamma' is there twice in an object"),
        ('[{"gamma": 1}, {"epochs": 1}]', "PATH: object 2 has 'epochs' and object 1 has not"),
        ('[{"gamma": 1, "epochs": 1}, {"epochs": 1}]', "PATH: object 1 has 'gamma' and object 2 has not"),
        ('[{"sample_id": 1}, {"sample_id": 1}]', "PATH, object 2: sample_id 1 is taken by object 1 already"),
        (
            '[{"gamma": null}]',
            "PATH, object 1, column 'gamma': got None; accepted: a finite float32, from 0 to 1",
        ),
        (
            '[{"gamma": NaN}]',
            "PATH, object 1, column 'gamma': got nan; accepted: a finite float32, from 0 to 1",
        ),
        ('[{"gama": 1}]', "PATH, column 1: unknown hyperparameter 'gama': did you mean gamma?"),
    ],
)
def test_json_refusals(tmp_path, text, message):
    path = put(tmp_path, text, "samples.json")
    with pytest.raises(UserError) as caught:
        read_samples(path, KNOWN)
    assert str(caught.value) == message.replace("PATH", str(path))


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError) as caught:
        read_samples(tmp_path / "missing.csv", KNOWN)
    assert str(caught.value) == f"samples file {tmp_path}/missing.csv cannot be read: No such file or directory"
    with pytest.raises(UserError) as caught:
        read_samples(tmp_path, KNOWN)
    assert str(caught.value) == f"samples file {tmp_path} cannot be read: Is a directory"


def test_json_beyond_what_python_reads(tmp_path):
    with pytest.raises(UserError, match="limit"):
        read_samples(put(tmp_path, f'[{{"epochs": {"9" * 5000}}}]', "samples.json"), KNOWN)
    with pytest.raises(UserError, match=r"samples\.json: nested too deeply; accepted is a JSON list"):
        read_samples(put(tmp_path, "[" * 100_000, "samples.json"), KNOWN)
