"""A search with hyperlax for so many seconds, over the space and with the output of `search_peer.py`.

    python search_hyperlax.py --env cartpole --seconds 60 --steps 61440 --seed 0 --output FILE.json

The clock starts before anything is imported.
"""

from __future__ import annotations

import time

STARTED = time.time()

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import report  # noqa: E402
import search_peer  # noqa: E402


def most_trials(seconds: float) -> int:
    """Returns more trials than there is time for: some six end a second, once compiled."""
    return max(256, round(6 * (seconds - 20)))


def recipe() -> Any:
    """Returns PPO with the peers' space: one learning rate and the same layers for actor and critic."""
    from hyperlax.algorithms.ppo import PPO
    from hyperlax.recipes import get_recipe
    from hyperlax.spaces import Categorical, LogUniform, Uniform
    from hyperlax.spaces.hyperparameters import replace

    @dataclasses.dataclass(frozen=True)
    class TiedPPO(PPO):
        """PPO whose critic has the actor's learning rate and layers."""

        def __post_init__(self) -> None:
            object.__setattr__(self, "critic_lr", self.actor_lr)
            object.__setattr__(self, "critic_network", self.actor_network)

    def distribution(entry: dict[str, Any]) -> Any:
        if "choices" in entry:
            return Categorical(tuple(entry["choices"]))
        return (LogUniform if entry["log"] else Uniform)(entry["low"], entry["high"])

    parent = get_recipe("ppo_mlp")
    plain = replace(parent.defaults, search_peer.FIXED)
    tied = TiedPPO(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})
    space = {name: distribution(entry) for name, entry in search_peer.SPACE.items()}
    return dataclasses.replace(parent, name="search_pays", defaults=tied, space=space, tuned={})


def search(args: argparse.Namespace, root: str) -> dict[str, Any]:
    """Searches until the time is over; returns what came of it."""
    import hyperlax

    left = args.seconds - (time.time() - STARTED)
    threading.Timer(left, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        hyperlax.optimize(
            recipe(), f"gymnax.{args.env}", num_trials=most_trials(args.seconds), sampler=args.sampler,
            pruner=args.pruner, seed=args.seed, run_length=args.steps, num_seeds=1,
            num_evaluations=search_peer.EVALUATIONS, num_eval_episodes=search_peer.EPISODES, winner_seeds=0,
            output_root=root, save_policies=False, progress=False, plot=False,
        )  # fmt: skip
    except KeyboardInterrupt:
        pass
    return result(Path(root), args.seconds)


def result(root: Path, seconds: float) -> dict[str, Any]:
    """Returns the trials of the study that ended in time, as a peer does."""
    from hyperlax.results import load_run
    from hyperlax.search.storages import open_storage

    if not list(root.rglob("run.json")):  # it was still compiling
        return search_peer.summary([], seconds) | {"trials": []}
    run = load_run(root)
    storage = open_storage(run.path / "study.journal")
    study = storage.get_all_studies()[0]
    samples = {sample["sample_id"]: sample for sample in run.samples.to_dict("records")}
    trials = []
    for trial in storage.get_all_trials(study._study_id):
        if trial.datetime_complete is None or trial.datetime_complete.timestamp() - STARTED > seconds:
            continue
        values = {name: samples[trial.number][name] for name in search_peer.SPACE}
        state = {"COMPLETED": "complete", "PRUNED": "pruned"}.get(trial.user_attrs.get("status", ""), "failed")
        end = trial.datetime_complete.timestamp() - STARTED
        value = trial.value if state == "complete" else None
        trials.append(dict(number=trial.number, params=values, value=value, state=state, end=end))
    trials.sort(key=lambda trial: trial["end"])
    program = run.info["programs"][0]
    about = {name: program[name] for name in ("lanes", "lanes_busy", "cores_busy", "compile_seconds")}
    about["lane_seconds"] = float(run.rounds["wall_seconds_end"].iloc[-1] - run.rounds["wall_seconds_start"].iloc[0])
    return search_peer.summary(trials, seconds) | about | {"trials": trials}


def retrain(args: argparse.Namespace, values: dict[str, Any], root: str) -> list[float | None]:
    """Trains the best on fresh seeds; None where one diverges."""
    import hyperlax

    run = hyperlax.sweep(
        recipe(), f"gymnax.{args.env}", samples=[values], seed=9_000 + args.seed,
        run_length=args.steps, num_seeds=args.retrain, num_evaluations=1, num_eval_episodes=search_peer.EPISODES,
        winner_seeds=0, output_root=root, save_policies=False, progress=False, plot=False,
    )  # fmt: skip
    returns = run.evaluations.set_index("seed")["mean_return"]
    ended = run.lanes.set_index("seed")["status"]
    return [float(returns[seed]) if ended[seed] == "COMPLETED" else None for seed in range(args.retrain)]


def main() -> None:
    """Searches, or trains the best of a search anew, and writes what came of it."""
    args = search_peer.parse()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})  # before JAX counts the cores
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache"  # empty: compiling counts
        if args.retrain:
            found = json.loads(args.output.read_text(encoding="utf-8"))
            found["retrained"] = retrain(args, found["best_params"], f"{folder}/retrain")
        else:
            found = search(args, f"{folder}/search")
            found |= dict(retrained=[], versions=report.our_versions(), command=report.command())
    args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in found.items() if k not in ("trials", "versions")}))


if __name__ == "__main__":
    main()
