"""Trials on lanes that are killed at any event of their study, and go on: a model of training, the real study."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from hyperlax.errors import UserError  # noqa: E402
from hyperlax.recipes.run_length import RunLength  # noqa: E402
from hyperlax.results.lock import DirectoryLock  # noqa: E402
from hyperlax.search.pruners import OVER_SEEDS, PRUNERS  # noqa: E402
from hyperlax.search.samplers import SAMPLERS  # noqa: E402
from hyperlax.search.storages import open_storage  # noqa: E402
from hyperlax.search.study import Study, quiet  # noqa: E402
from hyperlax.search.trials import Trials  # noqa: E402
from hyperlax.spaces.distributions import Categorical, Integer, LogUniform, Uniform  # noqa: E402

SPACE = {
    "lr": LogUniform(1e-4, 1e-1),
    "gamma": Uniform(0.9, 0.99),
    "layers": Categorical(((32, 32), (64,), (64, 64))),
    "epochs": Integer(1, 8),
}
LANES = 3


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """A storage whose process is killed before or after its n-th event."""

    def __init__(self, storage, rng, life):
        self.storage, self.rng, self.left = storage, rng, life

    def __getattr__(self, name):
        function = getattr(self.storage, name)
        if not name.startswith(("set_", "create_new_trial")):
            return function

        def event(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and self.rng.random() < 0.5:
                raise Killed
            result = function(*args, **kwargs)
            if self.left == 0:
                raise Killed
            return result

        return event


class Hyperparams(dict):
    steps_per_update = 1


def configured(values):
    if values["epochs"] == 8:
        raise UserError("8 epochs are too many")
    return Hyperparams(values)


def trained(hyperparams, seed, point):
    """The return of a lane; None where it has diverged."""
    rng = np.random.default_rng([int(1e6 * hyperparams["lr"]), hyperparams["epochs"], seed])
    if hyperparams["lr"] > 0.05 and point >= 3:
        return None
    return float(-abs(np.log10(hyperparams["lr"]) + 2.5) * (6 - point) + rng.normal() + len(hyperparams["layers"]))


class Machine:
    """Lanes that train by formula, with a checkpoint now and then; what survives a kill is ``disk``."""

    def __init__(self, disk, rng, length):
        self.disk, self.rng, self.length = disk, rng, length

    def add_samples(self, samples):
        pass

    def lane_finished(self, number, seed, status, env_steps):
        self.disk["ends"][number, seed] = status

    def summary_of(self, number):
        return {"num_params": 7.0}

    def run(self, trials):
        grid = self.length.grid()
        trials.writer = self
        lanes = [None] * LANES
        saved = self.disk.get("checkpoint")
        if saved is not None:
            slots, state = json.loads(saved)
            ended = trials.restore(state)
            going = {}
            for lane, number, seed, passed in slots:
                task = trials.going(number, seed)
                if task is not None:
                    lanes[lane] = [task, passed]
                    going[number, seed] = passed
            reached = {key: len(grid) for key in ended} | going
            rows = self.disk["rows"] = {key: row for key, row in self.disk["rows"].items() if key[:2] in reached}
            rows = {k: row for k, row in rows.items() if k[:2] in ended or grid.index(k[2]) < going.get(k[:2], 0)}
            self.disk["ends"] = {key: end for key, end in self.disk["ends"].items() if key in ended}
            self.disk["rows"] = rows
            curves = {}
            for (number, seed, step), value in rows.items():
                curves.setdefault((number, seed), {})[step] = value
            trials.take_up(curves, set(self.disk["ends"]), set(going))
        while True:
            for lane, slot in enumerate(lanes):
                if slot is None and (task := trials.take()) is not None:
                    lanes[lane] = [task, 0]
            if not any(lanes):
                return
            if self.rng.random() < 0.3:
                slots = [[i, s[0].sample_id, s[0].seed, s[1]] for i, s in enumerate(lanes) if s]
                self.disk["checkpoint"] = json.dumps([slots, trials.state()])
            rows, diverged = [], []
            for slot in filter(None, lanes):
                task, point = slot
                value = trained(task.hyperparams, task.seed, point)
                if value is None:
                    diverged.append(task)
                    continue
                slot[1] += 1
                row = {"sample_id": task.sample_id, "seed": task.seed, "grid_step": grid[point], "mean_return": value}
                rows.append(row)
                self.disk["rows"][task.sample_id, task.seed, grid[point]] = value
            given_up = trials.evaluated(rows, diverged).given_up
            ended = {}
            for lane, slot in enumerate(lanes):
                if slot is None:
                    continue
                whole = slot[1] == len(grid)
                status = "DIVERGED" if slot[0] in diverged else "COMPLETED" if whole else "PRUNED"
                if status != "PRUNED" or slot[0] in given_up:
                    ended[slot[0]] = status
                    self.disk["ends"][slot[0].sample_id, slot[0].seed] = status
                    lanes[lane] = None
            trials.ended(ended)


def search(folder, sampler, pruner, objectives, num_trials, kills, seed):
    rng = random.Random(seed)
    length = RunLength(900, 9, 1, 6 if pruner in OVER_SEEDS else 2)
    disk = {"rows": {}, "ends": {}}
    directions = ["maximize"] + ["minimize"] * (len(objectives) - 1)
    struck = 0
    while True:
        storage = open_storage(folder / "study.journal")
        life = 1 + int(rng.expovariate(1 / 30)) if struck < kills else 0
        mortal = Mortal(storage, rng, life)
        try:
            with quiet():
                decides = PRUNERS[pruner][0](length.grid())
            study = Study(mortal, "model", {"it": "is"}, SPACE, directions, sampler, decides, 5)
            study.join(folder, "me")
            trials = Trials(study, configured, length, num_trials, objectives, pruner in OVER_SEEDS)
            Machine(disk, rng, length).run(trials)
        except Killed:
            struck += 1
            continue
        history = [
            (t.number, t.state.name, t.params, t.values, t.intermediate_values, t.user_attrs.get("status"))
            for t in study.trials()
        ]
        return history, disk["rows"], disk["ends"], trials.counts, struck


CASES = [
    ("tpe", "none", ("final_return",)),
    ("tpe", "median", ("final_return",)),
    ("random", "asha", ("peak_return",)),
    ("qmc", "hyperband", ("final_return",)),
    ("tpe", "wilcoxon", ("final_return",)),
    ("nsgaii", "none", ("final_return", "num_params")),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_asks_for_trials_of_all_kinds_of_hyperparameters(tmp_path, sampler):
    for package in SAMPLERS[sampler].packages:
        pytest.importorskip(package)
    objectives = ("final_return", "num_params") if sampler.startswith("nsga") else ("final_return",)
    pruner = "none" if len(objectives) > 1 else "percentile"
    history, *_ = search(tmp_path, sampler, pruner, objectives, 16, 0, 0)
    assert len({tuple(map(str, params.values())) for _, _, params, *_ in history}) == 16
    assert all(params.keys() == SPACE.keys() for _, _, params, *_ in history)


def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path):
    for content in (b"SQLite format 3\x00 and no line break", b"a,b\n1,2\n", b'{"a": 1}\n', b"[1]\n"):
        (tmp_path / "study.db").write_bytes(content)
        with pytest.raises(UserError, match=r"study.db' is no journal of a study, and stays as it is; .*sqlite:///"):
            open_storage(tmp_path / "study.db")
        assert (tmp_path / "study.db").read_bytes() == content


def test_a_line_that_another_process_has_torn_costs_nothing_that_follows(tmp_path):
    def opened():
        return Study(open_storage(tmp_path / "study.journal"), "model", {}, SPACE, ["maximize"], "random", None, 5)

    study = opened()
    study.suggest(study.create())
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker')  # no room was left on the disk
    study.suggest(study.create())
    assert [len(trial.params) for trial in opened().trials()] == [4, 4]


def test_only_trials_of_workers_that_have_ended_are_taken_over_and_last(tmp_path, caplog):
    storage = open_storage(tmp_path / "study.journal")

    def joined(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"worker": name}))
        study = Study(storage, "model", {}, SPACE, ["maximize"], "random", PRUNERS["none"][0]([1]), 5, shared=True)
        lock = DirectoryLock(tmp_path / name)
        study.join(tmp_path / name, name)
        return study, lock

    locks = {}
    for name in ("alive", "ended", "moved"):
        study, locks[name] = joined(name)
        study.suggest(study.create())
    (tmp_path / "moved" / "run.json").write_text(json.dumps({"worker": "of another host, in a directory of that name"}))
    for name in ("ended", "moved"):
        locks[name].__exit__()
    taker, _ = joined("taker")
    trials = Trials(taker, configured, RunLength(900, 9, 1, 1), 5)
    trials.writer = Machine({"ends": {}}, random.Random(0), None)
    # Whoever comes back goes on with its own: they are taken when there is nothing else to begin.
    assert [trials.take().sample_id for _ in range(3)] == [3, 4, 1] and trials.take() is None
    assert [trial.number for trial in taker.own()] == [1, 3, 4]
    assert f"trials of a worker in {tmp_path / 'moved'} are left to it" in caplog.text


def test_a_trial_too_many_is_not_run(tmp_path):
    storage = open_storage(tmp_path / "study.journal")
    study = Study(storage, "model", {}, SPACE, ["maximize"], "random", PRUNERS["none"][0]([1]), 5, shared=True)
    study.join(tmp_path, "me")
    study.suggest(study.create())
    study.finish(study.create(), "FAILED", None)  # another process was faster
    study.create()  # and killed before it said so
    trials = Trials(study, configured, RunLength(900, 9, 1, 1), 1)
    trials.writer = Machine({"ends": {}}, random.Random(0), None)
    assert trials.take().sample_id == 0 and trials.take() is None
    assert [trial.state.name for trial in study.trials()] == ["RUNNING", "FAIL", "FAIL"]


@pytest.mark.parametrize(("sampler", "pruner", "objectives"), CASES)
def test_a_search_that_is_killed_anywhere_ends_like_one_that_is_not(tmp_path, sampler, pruner, objectives):
    (tmp_path / "whole").mkdir()
    expected = search(tmp_path / "whole", sampler, pruner, objectives, 14, 0, 0)
    struck = 0
    for seed in range(3):
        folder = tmp_path / f"killed_{seed}"
        folder.mkdir()
        got = search(folder, sampler, pruner, objectives, 14, 6, seed)
        assert got[:4] == expected[:4]
        struck += got[4]
    assert struck >= 6
    states = {name for _, name, *_ in expected[0]}
    statuses = {status for *_, status in expected[0]}
    assert "RUNNING" not in states and "COMPLETED" in statuses
    if pruner != "none":
        assert "PRUNED" in statuses
    assert {"DIVERGED", "FAILED"} & statuses
