"""Populations: what they choose, and that a killed one ends as it would have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("optuna")

import hyperlax
from hyperlax.engine import scheduler
from hyperlax.errors import UserError
from hyperlax.recipes import get_recipe
from hyperlax.results.lineage import ancestry
from hyperlax.search.population import Evolution, Populations, Replay, changeable, moved
from hyperlax.spaces.distributions import Categorical, Integer, LogUniform, Uniform
from hyperlax.spaces.files import Sample

WALL = ["wall_seconds", "wall_seconds_start", "wall_seconds_end", "lane"]
SPACE = {"lr": LogUniform(1e-4, 1e-1), "layers": Categorical(((32,), (64,))), "epochs": Integer(1, 8)}
GRID = [100, 200, 300, 400, 500, 600]
SIZE = 8


def hyperparams(values):
    if values["epochs"] == 7:
        raise UserError("7 epochs are too many")
    return dict(values)


def gain(values):
    """What an interval adds to a member's return: best with a learning rate of 10^-2.5."""
    return -abs(np.log10(values["lr"]) + 2.5)


def populations(folder, number=2, **changes):
    rng = np.random.default_rng(3)
    space = changeable(SPACE, ["lr"])
    samples = [
        Sample(i, {"lr": SPACE["lr"].from_unit(rng.random()), "layers": (32,) if i % 2 else (64,), "epochs": 1 + i % 4})
        for i in range(SIZE * number)
    ]
    order, file = [*range(len(samples)), None], folder / "lineage.csv"
    return Populations(samples, SIZE, Evolution(**changes), space, hyperparams, GRID, 11, order, file)


class Model:
    """Lanes whose state is a return that grows; some diverge, some are slow, some pass several points at once."""

    def __init__(self, queue, slow=lambda n: 1, jump=lambda n: 1):
        self.queue, self.slow, self.jump = queue, slow, jump
        self.lanes = {task: [0.0, 0] for task in queue.first(SIZE * 2) if task is not None}
        self.held, self.statuses, self.rounds = set(), {}, 0

    def round(self):
        self.rounds += 1
        rows, diverged = [], []
        for task, lane in self.lanes.items():
            if task in self.held or self.rounds % self.slow(task.sample_id):
                continue
            if task.hyperparams["lr"] > 0.05 and lane[1] == 1:
                diverged.append(task)
                continue
            for _ in range(min(self.jump(task.sample_id), len(GRID) - lane[1])):
                lane[0] += gain(task.hyperparams)
                lane[1] += 1
                step = GRID[lane[1] - 1]
                rows.append(dict(sample_id=task.sample_id, seed=0, grid_step=step, env_steps=step, mean_return=lane[0]))
        verdict = self.queue.evaluated(rows, diverged)
        self.held = set(verdict.held)
        states = {task: list(lane) for task, lane in self.lanes.items()}
        for task, copy in verdict.copies.items():
            del self.lanes[task]
            self.lanes[copy.task] = list(states[copy.source])
        ended = {task: "COMPLETED" for task, lane in self.lanes.items() if lane[1] == len(GRID)}
        ended |= {task: "DIVERGED" for task in diverged if task in self.lanes and task not in self.held}
        for task in ended:
            del self.lanes[task]
        self.statuses |= {task.sample_id: status for task, status in ended.items()}
        self.queue.ended(ended)

    def run(self):
        while self.lanes:
            assert self.rounds < 100
            self.round()
        return self


def test_the_worst_take_up_the_best_and_values_move_towards_what_learns(tmp_path):
    queue = populations(tmp_path)
    model = Model(queue).run()
    assert set(model.statuses.values()) == {"COMPLETED"}  # what had diverged came back to life
    lineage = pd.DataFrame(queue.lineage)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "lineage.csv")[["member", "parent", "lr"]],
        lineage.sort_values(["population", "generation", "member"])[["member", "parent", "lr"]].reset_index(drop=True),
    )
    for population in range(2):
        own = lineage[lineage["population"] == population]
        assert sorted(own["generation"].unique()) == [0, 1, 2, 3, 4, 5]
        assert set(own["parent"]) <= set(range(SIZE * population, SIZE * (population + 1)))  # none from elsewhere
        first, last = (own[own["generation"] == g] for g in (0, 5))
        assert (
            last["lr"].map(lambda lr: gain({"lr": lr})).mean() > 2 * first["lr"].map(lambda lr: gain({"lr": lr})).mean()
        )
        for generation in range(1, 6):
            now = own[own["generation"] == generation]
            replaced = now[now["parent"] != now["member"]]
            assert len(replaced) >= 2
            stayed = now[now["parent"] == now["member"]]
            second = stayed["return"].nlargest(2).iloc[1]
            assert (stayed.set_index("member").loc[replaced["parent"], "return"] >= second).all()


def test_structure_is_inherited_and_numbers_change(tmp_path):
    queue = populations(tmp_path)
    Model(queue).run()
    for number, member in queue.members.items():
        line = ancestry(queue.lineage, number)
        assert [a["grid_step"] for a in line] == [0, 100, 200, 300, 400, 500] and line[-1]["member"] == number
        assert line[0]["member"] == member.origin
        origin = queue.samples[member.origin].values
        assert {name: member.values[name] for name in ("layers", "epochs")} == {
            name: origin[name] for name in ("layers", "epochs")
        }
        assert member.values["lr"] == line[-1]["lr"]


def test_populations_do_not_depend_on_each_other_nor_on_who_is_fast(tmp_path):
    one, other = populations(tmp_path), populations(tmp_path)
    Model(one).run()
    Model(other, slow=lambda number: 1 + number % 3).run()

    def rows(queue):
        return sorted(queue.lineage, key=lambda row: (row["population"], row["generation"], row["member"]))

    assert rows(one) == rows(other)


def test_members_that_pass_several_points_at_once_wait_for_the_others(tmp_path):
    queue = populations(tmp_path, number=1)
    model = Model(queue, jump=lambda number: 3 if number < 2 else 1)
    while model.lanes:
        ahead = {task: lane[1] for task, lane in model.lanes.items()}
        model.round()
        boundary = queue._generations[0] + 1
        moved = {task for task, lane in model.lanes.items() if task in ahead and lane[1] > ahead[task]}
        assert all(ahead[task] < boundary for task in moved)
    assert set(model.statuses.values()) == {"COMPLETED"}
    assert max(queue._generations) <= len(GRID)


def test_a_population_goes_on_from_what_a_checkpoint_holds(tmp_path):
    whole = populations(tmp_path)
    model = Model(whole)
    states = []
    while model.lanes:
        states.append((json.dumps(whole.state()), {t.sample_id: list(v) for t, v in model.lanes.items()}))
        model.round()
    for text, lanes in states:
        again = populations(tmp_path)
        ended = again.restore(json.loads(text))
        goes_on = Model(again)
        goes_on.lanes = {again.going(number, 0): lane for number, lane in lanes.items()}
        assert {number for number, _ in ended} == set(range(2 * SIZE)) - set(lanes)
        goes_on.run()
        assert again.lineage == whole.lineage


def test_a_population_of_which_all_diverge_ends(tmp_path):
    queue = populations(tmp_path)
    for member in queue.members.values():
        member.task.hyperparams["lr"] = 0.09
    assert set(Model(queue).run().statuses.values()) == {"DIVERGED"}


def test_equal_members_are_left_alone(tmp_path):
    queue = populations(tmp_path, number=1)
    rows = [dict(sample_id=i, seed=0, grid_step=100, env_steps=100, mean_return=500.0) for i in range(SIZE)]
    assert not queue.evaluated(rows, []).copies


def test_a_value_moves_on_its_own_scale_and_stays_in_its_range():
    assert moved(LogUniform(1e-4, 1e-1), 1e-3, 1 / 3) == pytest.approx(1e-2)
    assert moved(LogUniform(1e-4, 1e-1), 1e-3, -0.9) == pytest.approx(1e-4)
    assert moved(Uniform(0.9, 1.0), 0.95, 0.1) == pytest.approx(0.96)
    assert moved(Uniform(0.9, 1.0), 0.995, 0.1) == 1.0
    assert moved(Integer(1, 8), 4, 0.01) == 5 and moved(Integer(1, 8), 1, -0.01) == 1
    assert moved(Integer(1, 1024, log=True), 32, 0.1) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0}, "exploit_every 0 with 6 evaluations: accepted is 1 … 5"),
        ({"every": 6}, "exploit_every 6 with 6"),
        ({"quantile": 0.6}, r"exploit_quantile 0\.6"),
        ({"perturbation": 0.0}, r"perturbation 0\.0"),
        ({"resample": 1.5}, r"resample_probability 1\.5"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Evolution(**changes).check(len(GRID))


# --- with real lanes -----------------------------------------------------------------------------

SETTINGS = dict(
    population_size=4, num_populations=2, exploit_every=1, overrides={"epochs": 1, "num_minibatches": 2},
    run_length=5120, num_evaluations=5, num_eval_episodes=2, winner_seeds=2, plot=False, progress=False,
)  # fmt: skip


def recipe():
    """PPO with structures that differ between members, and learning rates of which the largest make some diverge."""
    parent = get_recipe("ppo_mlp")
    names = ("rollout_length", "total_num_envs", "gamma", "ent_coef")
    space = {name: parent.space[name] for name in names} | {"actor_lr": LogUniform(1e-4, 1e25)}
    return replace(parent, space=space)


def train(root, **changes):
    return hyperlax.population_based_training(recipe(), "gymnax.cartpole", output_root=root, **(SETTINGS | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), plot=True)


def test_a_run_of_populations(whole):
    assert list(whole.summary["status"]) == ["COMPLETED"] * 8
    assert 8 * 5 > len(whole.evaluations) > 6 * 5  # what has diverged has no return before it takes up another state
    lineage = pd.read_csv(whole.path / "lineage.csv")
    assert (lineage.groupby(["population", "generation"]).size() == 4).all()
    assert (lineage["parent"] != lineage["member"]).any()
    returns = whole.evaluations.set_index(["sample_id", "grid_step"])["mean_return"]
    told = {(row.member, row.grid_step): row[6] for row in lineage.dropna(subset=["return"]).itertuples()}
    known = [key for key in told if key in returns.index]  # a copy of what was ahead skips some points
    assert len(known) > 12 and [told[key] for key in known] == pytest.approx(list(returns[known]))
    assert whole.info["winner"]["fresh_seeds"] == 2 and whole.info["members"] == {"COMPLETED": 8}
    drawn = pd.read_csv(whole.path / "plots" / "lineage.csv")
    line = drawn[drawn["in_line"]]
    assert list(line["generation"]) == sorted(set(drawn["generation"]))
    assert line["member"].iloc[-1] == whole.summary["sample_id"].iloc[0]
    assert "Population" in (whole.path / "report.html").read_text()


def test_members_that_copy_nothing_train_as_in_a_sweep(whole, tmp_path):
    lineage = pd.read_csv(whole.path / "lineage.csv")
    settings = {name: SETTINGS[name] for name in ("overrides", "run_length", "num_evaluations", "num_eval_episodes")}
    alone = hyperlax.sweep(
        recipe(), "gymnax.cartpole", samples=whole.samples, num_seeds=1, winner_seeds=0, plot=False, progress=False,
        output_root=tmp_path, **settings,
    )  # fmt: skip
    there, here = (run.evaluations.set_index(["sample_id", "grid_step"])["mean_return"] for run in (alone, whole))
    copied = lineage[lineage["parent"] != lineage["member"]].groupby("member")["grid_step"].min()
    same = [(member, step) for member, step in there.index if step <= copied.get(member, np.inf) and step <= 2048]
    assert len(same) > 8
    np.testing.assert_allclose(here.loc[same], there.loc[same], rtol=1e-3)


def test_populations_do_not_depend_on_the_number_of_devices(whole, tmp_path):
    one = train(tmp_path, num_devices=1, winner_seeds=0)
    lineages = [pd.read_csv(run.path / "lineage.csv") for run in (whole, one)]
    names = ["generation", "member", "parent", "actor_lr"]
    early = [lineage[lineage["grid_step"] <= 2048][names].reset_index(drop=True) for lineage in lineages]
    pd.testing.assert_frame_equal(*early)


def test_a_winners_training_that_was_stopped_costs_no_member_its_results(whole, tmp_path, monkeypatch):
    from hyperlax.search import pbt

    final_returns = pbt.final_returns

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pbt, "final_returns", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, resume=True)
    monkeypatch.setattr(pbt, "final_returns", final_returns)
    again = train(tmp_path, resume=True)
    assert again.info["winner"] == whole.info["winner"] and not list(again.path.glob("checkpoints/*"))
    assert again.info["programs"][0]["ticks"] == 0  # no member was trained again


def test_a_run_that_was_stopped_ends_as_one_that_was_not(whole, tmp_path, monkeypatch):
    calls, save = [], scheduler.Scheduler._save

    def stopped(self, lanes, slots, queue):
        calls.append(None)
        self.stop.requested |= len(calls) == 8
        save(self, lanes, slots, queue)

    monkeypatch.setattr(scheduler.Scheduler, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, resume=True)
    with monkeypatch.context() as patch:  # lanes go on where they were: no first task is asked for
        patch.setattr(Populations, "first", None)
        again = train(tmp_path, resume=True)
    for name in ("samples", "evaluations", "metrics", "lanes"):
        one, other = (getattr(run, name).drop(columns=WALL, errors="ignore") for run in (whole, again))
        pd.testing.assert_frame_equal(one, other)
    assert (whole.path / "lineage.csv").read_bytes() == (again.path / "lineage.csv").read_bytes()
    assert again.info["winner"] == whole.info["winner"]
    assert train(tmp_path, resume=True).path == again.path  # finished: nothing is left to do


@pytest.mark.parametrize("name", ["evaluations.csv", "lineage.csv"])
def test_what_is_damaged_in_a_population_that_has_finished_is_named_and_made_again(whole, tmp_path, caplog, name):
    shutil.copytree(whole.path.parents[2], tmp_path / "there")
    (directory,) = (tmp_path / "there").glob("*/gymnax_cartpole/run_001")
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: 2 * len(content) // 3])
    again = train(tmp_path / "there", resume=True)
    assert name in caplog.text
    assert (again.path / "lineage.csv").read_bytes() == (whole.path / "lineage.csv").read_bytes()
    for table in ("evaluations", "metrics", "lanes"):
        one, other = (getattr(run, table).drop(columns=WALL, errors="ignore") for run in (whole, again))
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("name", ["samples.csv", "summary.csv"])
def test_what_can_be_written_again_costs_no_member_of_a_population_its_training(whole, tmp_path, caplog, name):
    shutil.copytree(whole.path.parents[2], tmp_path / "there")
    (directory,) = (tmp_path / "there").glob("*/gymnax_cartpole/run_001")
    (directory / name).write_bytes(b"\x00\xff\n" * 40)
    before = (directory / "run.json").read_bytes()
    train(tmp_path / "there", resume=True)
    assert f"{name} is damaged: it is written again" in caplog.text
    assert (directory / name).read_bytes() == (whole.path / name).read_bytes()
    assert (directory / "run.json").read_bytes() == before


def test_bad_populations_are_refused(tmp_path):
    for changes, message in (
        ({"population_size": 1}, "population_size 1"),
        ({"num_populations": 0}, "num_populations 0"),
        ({"exploit_every": 5}, "exploit_every 5 with 5"),
        ({"memory_limit_gib": 0.0005}, "memory does not suffice"),
    ):
        with pytest.raises(UserError, match=message):
            train(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_replay_changes_hyperparameters_as_the_line_did():
    first, second = object(), object()
    from hyperlax.engine.program import Task

    queue = Replay([Task(3, seed, first) for seed in (1, 2)], changes=[(0, first), (2, second)])
    tasks = queue.first(3)
    assert [task and task.seed for task in tasks] == [1, 2, None]
    row = {"sample_id": 3, "seed": 1}
    assert not queue.evaluated([row], []).copies
    copies = queue.evaluated([row, {"sample_id": 3, "seed": 2}], []).copies
    assert {task.seed: copy.task.hyperparams is second for task, copy in copies.items()} == {1: True}
