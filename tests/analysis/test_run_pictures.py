"""The pictures of one run: the numbers in them, and what is left out where there is too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hyperlax.analysis.collection import collect, entry_of
from hyperlax.analysis.run_pictures import NAMES, plot_run
from hyperlax.analysis.time_pictures import best_so_far, occupied, throughput

SEARCH = {"study": "s", "request": {"objectives": ["final_return"], "directions": ["maximize"]}}


def configurations(count):
    rng = np.random.default_rng(1)
    return [
        {"lr": float(10 ** rng.uniform(-4, -1)), "layers": [(32, 32), (64, 64)][i % 2], "norm": i % 3 == 0, "same": 3}
        for i in range(count)
    ]


def by_rate(values):
    return 100 * (5 + np.log10(values["lr"]))


def drawn(run, folder, **options):
    return [file.stem for file in plot_run(entry_of(run), folder, formats=["png"], **options).values()]


def test_every_picture_has_three_formats_and_its_numbers(write_run, tmp_path):
    run = write_run(
        tmp_path / "run", configurations(12), by_rate, ends={3: ("DIVERGED", 0), 5: ("PRUNED", 2)}, **SEARCH
    )
    pictures = plot_run(entry_of(run), tmp_path / "plots")
    assert [file.stem for file in pictures.values()] == [
        name for name in NAMES if name not in ("lineage", "sensitivity")
    ]
    for file in pictures.values():
        assert file.read_bytes().startswith(b"\x89PNG")
        assert all(file.with_suffix(kind).stat().st_size > 3000 for kind in (".svg", ".pdf"))
        assert len(pd.read_csv(file.with_suffix(".csv")))
    for file in plot_run(entry_of(run), tmp_path / "again", ["timeline", "parallel_coordinates"]).values():
        same = tmp_path / "plots" / file.with_suffix(".svg").name
        assert same.read_bytes() == file.with_suffix(".svg").read_bytes()
    slices = pd.read_csv(tmp_path / "plots" / "slices.csv").query("panel == 'lr'").set_index("sample_id")
    for number, values in enumerate(configurations(12)):
        assert float(slices.loc[number, "x"]) == pytest.approx(values["lr"], rel=1e-5)
        known = number != 3
        assert np.isfinite(slices.loc[number, "y"]) == known
    assert slices.loc[3, "status"] == "DIVERGED"
    lines = pd.read_csv(tmp_path / "plots" / "parallel_coordinates.csv")
    assert lines["final_return"].iloc[0] == pytest.approx(run.summary["final_return"].max(), rel=1e-5)


def test_pairs_have_the_mean_of_each_cell(write_run, tmp_path):
    values = [{"a": a, "b": b} for a in ("x", "y") for b in (1, 2, 3) for _ in range(2)]
    run = write_run(tmp_path / "run", values, lambda v: 10.0 * v["b"] + (v["a"] == "y"), evaluations=1)
    assert "interactions" in drawn(run, tmp_path / "plots", only=["interactions"])
    cells = pd.read_csv(tmp_path / "plots" / "interactions.csv")
    assert set(cells["configurations"]) == {2} and len(cells) == 6
    letter, number = ("x_bin", "y_bin") if cells["x"].iloc[0] == "a" else ("y_bin", "x_bin")
    assert (cells["mean_return"] == 10 * (cells[number] + 1) + cells[letter]).all()


def test_the_share_of_lanes_that_are_occupied(write_run, tmp_path):
    # Lane 0 has 4 s of one seed, lane 1 then 2 s of another that is pruned; two lanes stay empty, and 4 s are idle.
    run = write_run(
        tmp_path, configurations(2), by_rate, seeds=[0], ends={1: ("PRUNED", 2)}, lanes=2,
        programs=[{"program": 0, "lanes": 4}], seconds=8.0,
    )  # fmt: skip
    moments, share = occupied(run)
    assert moments[-1] == 8 and share[0] == 0.5 and share[-1] == 0
    assert share.mean() == pytest.approx((2 * 0.5 + 2 * 0.25) / 8, abs=0.01)


def test_throughput_accounts_for_every_step(write_run, tmp_path):
    run = write_run(tmp_path, configurations(6), by_rate, ends={1: ("PRUNED", 2)}, lanes=3, seconds=20.0)
    edges, rates = throughput(run)
    assert (rates * np.diff(edges)).sum() == pytest.approx(run.lanes["env_steps"].sum())
    assert rates[0] == pytest.approx(3000) and rates[-1] == 0  # three lanes, 1000 steps a second each


def test_the_best_so_far_is_that_of_trials_that_completed(write_run, tmp_path):
    levels = [{"level": value} for value in (1.0, 5.0, 3.0, 90.0)]
    request = {"objectives": ["final_return", "time_to_target"], "directions": ["maximize", "minimize"]}
    run = write_run(
        tmp_path / "run", levels, lambda v: v["level"], seeds=[0], evaluations=1, lanes=1, ends={3: ("PRUNED", 1)},
        study="s", request=request,
    )  # fmt: skip
    best = best_so_far(run).query("objective == 'final_return'")
    assert best["trial"].tolist() == [0, 1, 2, 3] and best["wall_seconds"].tolist() == [1, 2, 3, 4]
    assert best["value"].tolist() == [1, 5, 3, 90] and best["best"].tolist() == [1, 5, 5, 5]
    table = run.summary.assign(time_to_target=[9.0, 700.0, 500.0, 600.0])  # best first: 90, 5, 3, 1
    best = best_so_far(replace(run, summary=table)).query("objective == 'time_to_target'")
    assert best["value"].tolist() == [600, 700, 500, 9] and best["best"].tolist() == [600, 600, 500, 500]
    assert drawn(run, tmp_path / "plots", only=["best_so_far"]) == ["best_so_far"]


SPACE = {"importance", "slices", "interactions", "parallel_coordinates"}
TIME = {"throughput", "timeline"}


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (configurations(1), {"seeds": [0], "evaluations": 1}, TIME),
        (configurations(3)[:1] * 3, {}, TIME),  # nothing varies
        ([{"kind": k, "flag": f} for k in "abcd" for f in (True, False)], {}, SPACE | TIME),
        ([{"lr": 0.1}, {"lr": 0.2}], {}, SPACE - {"interactions", "importance"} | TIME),  # too few to tell
        (configurations(8), {"ends": {i: ("DIVERGED", 1) for i in range(8)}}, TIME),  # all are equally bad
        (configurations(8), {"ends": {i: (None, 2) for i in range(3, 8)}}, SPACE - {"importance"} | TIME),  # killed
        (configurations(8), {"ends": {i: (None, 1) for i in range(8)}}, SPACE),  # no seed has ended
        (configurations(8), {"ends": {i: ("DIVERGED", 1) for i in range(8)}, **SEARCH}, TIME),
    ],
)
def test_what_cannot_be_drawn_is_left_out(write_run, tmp_path, values, options, expected):
    def level(values):
        return by_rate(values) if "lr" in values else 1.0

    run = write_run(tmp_path / "run", values, level, **options)
    assert set(drawn(run, tmp_path / "plots")) == expected


def test_a_published_table_has_pictures_of_its_hyperparameters(tmp_path):
    file = tmp_path / "gymnax.cartpole_dqn-mlp_summary.csv"
    rows = {"hp id": range(12), "sample id": range(12), "peak return": range(12), "final return": [*range(11), ""]}
    pd.DataFrame(rows).assign(**{"critic lr": np.linspace(1, 2, 12), "activation": ["a", "b"] * 6}).to_csv(
        file, index=False
    )
    [entry] = collect([file])
    assert {f.stem for f in plot_run(entry, tmp_path / "plots", formats=["png"]).values()} == SPACE
