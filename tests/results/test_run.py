"""Writing and reading a run directory, also after it was killed or torn."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperlax.errors import UserError
from hyperlax.results import (
    RunWriter,
    create_run_directory,
    load_policy_arrays,
    load_run,
    read_summary,
)
from hyperlax.spaces.files import Sample, to_csv

ROOT = Path(__file__).parents[2]
SAMPLES = [
    Sample(0, {"actor_lr": 1e-3, "actor_network.layer_sizes": (32, 32), "normalize": True}),
    Sample(1, {"actor_lr": 0.1 + 0.2, "actor_network.layer_sizes": (64, 64), "normalize": False}),
]


def evaluation(sample_id, seed, step, value):
    row = {"sample_id": sample_id, "seed": seed, "grid_step": step, "env_steps": step + 3, "mean_return": value}
    return row | {
        "std_return": 1.5,
        "min_return": -1.0,
        "max_return": np.float32(0.1),
        "mean_length": 7.0,
        "episodes": 8,
        "wall_seconds": 0.25,
    }


def write_run(directory, seeds=(0, 1)):
    with RunWriter(directory, {"recipe": "ppo_mlp", "budget_steps": 20}, SAMPLES, seeds) as writer:
        for sample in SAMPLES:
            for seed in seeds:
                value = 10.0 * sample.sample_id + seed
                writer.evaluations([evaluation(sample.sample_id, seed, 10, 0.0)])
                writer.evaluations([evaluation(sample.sample_id, seed, 20, value)])
                writer.metrics([{"sample_id": sample.sample_id, "seed": seed, "env_steps": 20, "loss": 0.1}])
                writer.lane_finished(sample.sample_id, seed, "COMPLETED", 20, wall_seconds_start=0, wall_seconds_end=2)
    return directory


def test_round_trip(tmp_path):
    run = load_run(write_run(create_run_directory(tmp_path, "ppo_mlp", "gymnax.pendulum")))
    assert (run.info["state"], run.info["recipe"], run.info["seeds"]) == ("finished", "ppo_mlp", [0, 1])
    assert run.info["start_time"] <= run.info["end_time"]
    assert run.hyperparameters == ["actor_lr", "actor_network.layer_sizes", "normalize"]
    assert run.samples["actor_lr"].tolist() == [1e-3, 0.1 + 0.2]
    assert run.evaluations["mean_return"].tolist() == [0, 0, 0, 1, 0, 10, 0, 11]
    assert run.evaluations["max_return"].unique().tolist() == [0.1]  # a float32's digits, not its float64's
    assert run.metrics["loss"].tolist() == [0.1] * 4
    assert run.lanes["status"].tolist() == ["COMPLETED"] * 4
    assert run.summary["sample_id"].tolist() == [1, 0]
    assert run.summary["final_return"].tolist() == [10.5, 0.5]
    on_disk = read_summary(run.path)
    assert on_disk["final_return"].tolist() == [10.5, 0.5]
    assert on_disk["actor_network.layer_sizes"].tolist() == ["[64, 64]", "[32, 32]"]
    assert not [name for name in os.listdir(run.path) if name.startswith(".")], "a temporary file was left"


def test_second_run_stands_beside_the_first(tmp_path):
    first = create_run_directory(tmp_path, "ppo_mlp", "gymnax.pendulum")
    second = create_run_directory(tmp_path, "ppo_mlp", "gymnax.pendulum")
    assert first == tmp_path / "ppo_mlp" / "gymnax_pendulum" / "run_001"
    assert second == first.with_name("run_002")


def test_directories_are_never_shared(tmp_path):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(create_run_directory(tmp_path, "a", "b"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20


def test_output_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--output-root '.*file'.*cannot make") as caught:
        create_run_directory(tmp_path / "file", "ppo_mlp", "x")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_root_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        create_run_directory(tmp_path, "ppo_mlp", "x")


def test_output_root_on_a_file_system_that_refuses():
    with pytest.raises(UserError, match="cannot make a run directory"):
        create_run_directory("/proc/nowhere", "ppo_mlp", "x")


def test_torn_last_line_is_left_out_and_cut_off_by_a_resumed_run(tmp_path):
    write_run(tmp_path)
    with (tmp_path / "evaluations.csv").open("a") as file:
        file.write("1,1,30,33,99")
    assert load_run(tmp_path).evaluations["grid_step"].max() == 20
    with RunWriter(tmp_path, {"budget_steps": 30}, SAMPLES, [0, 1]) as writer:
        writer.evaluations([evaluation(1, 1, 30, 77.0), evaluation(1, 1, 20, 12.0)])
    run = load_run(tmp_path)
    assert run.evaluations["grid_step"].tolist()[-2:] == [20, 30]
    assert len(run.evaluations) == 9, "the row written again counts once"
    assert len(run.info["resumed_times"]) == 1
    assert read_summary(tmp_path)["peak_return"].max() == run.summary["peak_return"].max() == 77


def test_every_cut_of_a_table_is_readable(tmp_path):
    write_run(tmp_path)
    path = tmp_path / "lanes.csv"
    content = path.read_bytes()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        assert len(load_run(tmp_path).lanes) == max(0, content[:size].count(b"\n") - 1)


WRITER = """
import sys
sys.path.insert(0, {root!r})
from hyperlax.results import RunWriter
from hyperlax.spaces.files import Sample, to_csv
ticks = iter(range(10**9))
writer = RunWriter({path!r}, {{"budget_steps": 1000}}, [Sample(i, {{"lr": i / 7}}) for i in range(40)], [0],
                   clock=lambda: 10.0 * next(ticks))
for step in range(1, 10**6):
    rows = [dict(sample_id=i, seed=0, grid_step=step, env_steps=step, mean_return=i + step / 3) for i in range(40)]
    writer.evaluations(rows)
    writer.metrics([dict(sample_id=i, seed=0, env_steps=step, loss=1 / step) for i in range(40)])
    if step <= 40:
        writer.lane_finished(step - 1, 0, "COMPLETED", step)
        writer.save_policy(step - 1, 0, {{"w": __import__("numpy").ones(1000)}}, {{"step": step}})
    writer.update_info(step=step)
    if step == 3:
        print("going", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.17])
def test_killed_while_writing(tmp_path, delay):
    script = WRITER.format(root=str(ROOT), path=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "going\n"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    run = load_run(tmp_path)
    assert run.info["state"] == "running" and run.info["step"] >= 3
    assert len(run.evaluations) >= 120 and len(run.metrics) >= 120 and len(run.lanes) >= 3
    expected = run.evaluations["sample_id"] + run.evaluations["grid_step"] / 3
    assert (run.evaluations["mean_return"] == expected).all()
    assert (run.metrics["loss"] == 1 / run.metrics["env_steps"]).all()
    assert len(run.summary) == len(read_summary(tmp_path)) == 40
    arrays, metadata = load_policy_arrays(tmp_path, 2)
    assert arrays["w"].sum() == 1000 and metadata["step"] == 3


def test_each_batch_of_rows_is_one_system_call(tmp_path, monkeypatch):
    calls = []
    write = os.write
    with RunWriter(tmp_path, {}, SAMPLES, [0]) as writer:
        monkeypatch.setattr(os, "write", lambda file, data: calls.append(bytes(data)) or write(file, data))
        writer.evaluations([evaluation(0, 0, step, 1.0) for step in range(5)])
        monkeypatch.undo()
    assert len(calls) == 1 and calls[0].count(b"\n") == 5 and calls[0].endswith(b"\n")


@pytest.mark.parametrize(
    ("error", "state"),
    [(KeyboardInterrupt(), "interrupted"), (SystemExit(-1), "interrupted"), (RuntimeError("no"), "failed")],
)
def test_state_after_an_exception(tmp_path, error, state):
    with pytest.raises(type(error)), RunWriter(tmp_path, {}, SAMPLES, [0]) as writer:
        writer.evaluations([evaluation(0, 0, 10, 3.0)])
        assert json.loads((tmp_path / "run.json").read_text())["state"] == "running"
        raise error
    run = load_run(tmp_path)
    assert run.info["state"] == state
    assert run.summary["final_return"].iloc[0] == 3


def test_a_lane_that_is_trained_again_replaces_what_it_was(tmp_path):
    with RunWriter(tmp_path, {}, SAMPLES, [0, 1]) as writer:
        writer.lane_finished(0, 0, "COMPLETED", 5, message="two\nlines, and a comma")
        writer.lane_finished(0, 1, "FAILED", 5)
        writer.lane_finished(1, 0, "DIVERGED", 5, diverged_at=4)
        writer.lane_finished(1, 1, "TIMED_OUT", 5)
        with pytest.raises(ValueError, match="COMPLETED, PRUNED"):
            writer.lane_finished(1, 1, "DONE", 5)
    assert load_run(tmp_path).lanes["message"].iloc[0] == "two lines, and a comma"
    with RunWriter(tmp_path, {}, SAMPLES, [0, 1]) as writer:
        writer.lane_finished(0, 1, "COMPLETED", 5)
    assert load_run(tmp_path).summary.set_index("sample_id")["status"].to_dict() == {0: "COMPLETED", 1: "DIVERGED"}


def test_the_tables_of_a_finished_run_are_sorted(tmp_path):
    with RunWriter(tmp_path, {}, SAMPLES, [0, 1]) as writer:
        for sample, seed, step in [(1, 0, 20), (0, 1, 10), (1, 0, 10), (0, 0, 10), (1, 0, 20)]:
            writer.evaluations([evaluation(sample, seed, step, float(step))])
    table = pd.read_csv(tmp_path / "evaluations.csv")
    assert table[["sample_id", "seed", "grid_step"]].to_numpy().tolist() == [
        [0, 0, 10],
        [0, 1, 10],
        [1, 0, 10],
        [1, 0, 20],
    ]


def test_summary_is_brought_up_to_date_while_running(tmp_path):
    now = [0.0]
    writer = RunWriter(tmp_path, {}, SAMPLES, [0], clock=lambda: now[0])
    writer.evaluations([evaluation(0, 0, 10, 3.0)])
    assert not (tmp_path / "summary.csv").exists()
    now[0] = 6.0
    writer.evaluations([evaluation(0, 0, 20, 4.0)])
    assert read_summary(tmp_path)["final_return"].iloc[0] == 4
    writer.close("finished")


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0)])
def test_samples_drawn_while_the_run_goes_on(tmp_path, order):
    with RunWriter(tmp_path, {}, [], [0]) as writer:
        for number in order:
            writer.add_samples(SAMPLES[number : number + 1])
    assert (tmp_path / "samples.csv").read_text() == to_csv(SAMPLES)


def test_a_search_whose_trials_others_have_taken_over_has_no_samples(tmp_path):
    with RunWriter(tmp_path, {}, SAMPLES, [0]):
        pass
    with RunWriter(tmp_path, {}, [], [0]):
        assert len(load_run(tmp_path).samples) == 0
    assert len(load_run(tmp_path).summary) == 0


def test_a_damaged_run_json_is_named_and_written_anew(tmp_path, caplog):
    for content in ("{half", "5"):
        (tmp_path / "run.json").write_text(content)
        with RunWriter(tmp_path, {}, SAMPLES, [0]):
            pass
        assert "run.json is damaged" in caplog.text and load_run(tmp_path).info["start_time"]
        caplog.clear()


def test_a_torn_sample_is_written_again(tmp_path):
    with RunWriter(tmp_path, {}, SAMPLES, [0]):
        content = (tmp_path / "samples.csv").read_bytes()
        (tmp_path / "samples.csv").write_bytes(content[:-3])
        assert load_run(tmp_path).samples["sample_id"].tolist() == [0]
    with RunWriter(tmp_path, {}, SAMPLES[:1], [0]) as writer:
        writer.add_samples(SAMPLES[1:])
    assert (tmp_path / "samples.csv").read_bytes() == content


def test_metric_columns_are_those_of_the_first_row(tmp_path):
    with RunWriter(tmp_path, {}, SAMPLES, [0]) as writer:
        writer.metrics([{"loss": 1.0, "env_steps": 5, "seed": 0, "sample_id": 1}])
        with pytest.raises(KeyError, match="entropy"):
            writer.metrics([{"sample_id": 0, "seed": 0, "env_steps": 9, "entropy": 1.0}])
    assert list(load_run(tmp_path).metrics.columns) == ["sample_id", "seed", "env_steps", "loss"]


def test_policies(tmp_path):
    arrays = {"actor/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.int32(7)}
    with RunWriter(tmp_path, {}, SAMPLES, [0]) as writer:
        path = writer.save_policy(12, 3, arrays, {"layer_sizes": (64, 64), "return": np.float32(0.5)})
    assert path == tmp_path / "policies" / "sample_000012_seed_3.npz"
    got, metadata = load_policy_arrays(tmp_path, 12)
    assert got["actor/kernel"].dtype == np.float32
    np.testing.assert_array_equal(got["actor/kernel"], arrays["actor/kernel"])
    assert metadata == {"sample_id": 12, "seed": 3, "layer_sizes": [64, 64], "return": 0.5}
    with pytest.raises(UserError, match=r"no policy of sample 12, seed 4; saved: 12 \(seed 3\)"):
        load_policy_arrays(tmp_path, 12, 4)


def test_group_directory(tmp_path):
    first = write_run(create_run_directory(tmp_path, "ppo_mlp", "gymnax.pendulum"))
    assert (load_run(tmp_path).path, load_run(tmp_path / "ppo_mlp").note) == (first, "")
    second = write_run(create_run_directory(tmp_path / "one" / "level" / "more", "dqn_mlp", "gymnax.cartpole"))
    chosen = load_run(tmp_path)
    assert chosen.path == second
    assert "holds 2 runs" in chosen.note and str(second) in chosen.note


@pytest.mark.parametrize("content", [None, "{}", "not json", "[1]"])
def test_foreign_directories(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such directory"):
        load_run(tmp_path / "missing")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_files_that_are_no_summary(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_summary(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_results_do_not_import_jax():
    code = "import sys, hyperlax.results.writer, hyperlax.results.reader; sys.exit('jax' in sys.modules)"
    blank = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import hyperlax; jax = 'jax' in sys.modules; "
    result = subprocess.run([sys.executable, "-c", f"{blank}jax or exec({code!r})"], check=False)
    assert result.returncode == 0
