"""Optuna driving a peer one trial at a time, in the peer's own environment: rejax or Stable-Baselines3.

    python search_peer.py --peer sb3 --env cartpole --seconds 300 --steps 61440 --seed 0 --output FILE.json

Both peers are used as their manuals say: rejax compiles each trial's training, evaluations included, and runs it;
Stable-Baselines3 learns under a callback that evaluates and lets Optuna prune. The space is written once, below, in
hyperlax's names; `--print-space` prints it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ENVIRONMENTS = {"cartpole": "CartPole-v1", "acrobot": "Acrobot-v1", "pendulum": "Pendulum-v1"}
PACKAGES = ("optuna", "rejax", "jax", "gymnax", "stable-baselines3", "torch", "gymnasium", "numpy")
EVALUATIONS, EPISODES = 10, 16
RUNGS = (2, 4)  # evaluations at a ninth and a third of the budget, or just after

SPACE: dict[str, dict[str, Any]] = {
    "actor_network.layer_sizes": {"choices": [[32, 32], [64, 64], [128, 128]]},
    "actor_network.activation": {"choices": ["tanh", "relu"]},
    "actor_lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "gamma": {"low": 0.9, "high": 0.999, "log": False},
    "gae_lambda": {"low": 0.9, "high": 1.0, "log": False},
    "clip_eps": {"low": 0.1, "high": 0.3, "log": False},
    "ent_coef": {"low": 1e-4, "high": 1e-1, "log": True},
    "rollout_length": {"choices": [32, 64, 128]},
    "epochs": {"choices": [1, 2, 4, 8]},
    "num_minibatches": {"choices": [4, 8, 16]},
    "total_num_envs": {"choices": [8, 16]},
    "normalize_rewards": {"choices": [True, False]},
}
# What is the same in all trials, and what the peers have no second value for.
FIXED = {
    "actor_network.use_layer_norm": False,
    "critic_network.use_layer_norm": False,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "standardize_advantages": True,
    "decay_learning_rates": False,
    "normalize_observations": True,
}
TIED = {
    "critic_lr": "actor_lr",
    "critic_network.layer_sizes": "actor_network.layer_sizes",
    "critic_network.activation": "actor_network.activation",
}

Report = Callable[[int, float], None]  # the number of an evaluation and its mean return; raises to end the trial
Train = Callable[[str, int, Mapping[str, Any], int, Report], float]


class Late(Exception):
    """The time is over."""


def distributions() -> dict[str, Any]:
    """Returns the space as Optuna's; choices that are lists stand there as text."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: CategoricalDistribution([str(c) if isinstance(c, list) else c for c in entry["choices"]])
        if "choices" in entry
        else FloatDistribution(entry["low"], entry["high"], log=entry["log"])
        for name, entry in SPACE.items()
    }


def values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's parameters with lists for their texts."""
    return {k: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for k, v in params.items()}


def rejax_trainer() -> Train:
    """Imports rejax, starts the backend and returns what trains with it."""
    import jax
    import rejax
    from rejax.evaluate import evaluate

    jax.devices()

    def greedy(algorithm: Any, state: Any, key: Any) -> Any:
        def act(observation: Any, _: Any) -> Any:
            features = algorithm.normalize_obs(state.obs_rms_state, observation)[None]
            return algorithm.actor.apply(state.actor_ts.params, features, method="_action_dist").mode().squeeze()

        env, params = algorithm.env, algorithm.env_params
        return evaluate(act, key, env, params, EPISODES, params.max_steps_in_episode)[1].mean()

    def train(env: str, steps: int, hyperparams: Mapping[str, Any], seed: int, report: Report) -> float:
        del report  # training is one compiled call, which nothing can end
        algorithm = rejax.PPO.create(env=env, **rejax_arguments(steps, hyperparams)).replace(eval_callback=greedy)
        _, returns = jax.jit(algorithm.train)(jax.random.key(seed))
        return float(returns[-1])

    return train


def rejax_arguments(steps: int, h: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters as rejax takes them."""
    return dict(
        agent_kwargs=dict(
            hidden_layer_sizes=tuple(h["actor_network.layer_sizes"]), activation=h["actor_network.activation"]
        ),
        total_timesteps=steps,
        eval_freq=steps // EVALUATIONS,
        skip_initial_evaluation=True,
        learning_rate=h["actor_lr"],
        gamma=h["gamma"],
        gae_lambda=h["gae_lambda"],
        clip_eps=h["clip_eps"],
        ent_coef=h["ent_coef"],
        vf_coef=h["vf_coef"],
        max_grad_norm=h["max_grad_norm"],
        num_steps=h["rollout_length"],
        num_epochs=h["epochs"],
        num_minibatches=h["num_minibatches"],
        num_envs=h["total_num_envs"],
        normalize_observations=h["normalize_observations"],
        normalize_rewards=h["normalize_rewards"],
        reward_normalization_discount=h["gamma"],
    )


def sb3_trainer(threads: int) -> Train:
    """Imports Stable-Baselines3 and returns what trains with it."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization

    torch.set_num_threads(threads)

    class Evaluations(BaseCallback):
        """Evaluates the greedy policy at ten points, after the update, and reports."""

        def __init__(self, env: Any, interval: int, report: Report) -> None:
            super().__init__()
            self.env, self.interval, self.report = env, interval, report
            self.done, self.value = 0, math.nan

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps >= (self.done + 1) * self.interval:
                self.evaluate()

        def _on_training_end(self) -> None:
            self.evaluate()

        def evaluate(self) -> None:
            self.done += 1
            sync_envs_normalization(self.training_env, self.env)
            self.value = float(evaluate_policy(self.model, self.env, EPISODES, deterministic=True)[0])
            self.report(self.done, self.value)

    def train(env: str, steps: int, h: Mapping[str, Any], seed: int, report: Report) -> float:
        normalized = h["normalize_observations"]
        training = VecNormalize(
            make_vec_env(env, h["total_num_envs"], seed=seed),
            norm_obs=normalized,
            norm_reward=h["normalize_rewards"],
            gamma=h["gamma"],
        )
        other = make_vec_env(env, EPISODES, seed=seed + 1)
        evaluation = VecNormalize(other, training=False, norm_obs=normalized, norm_reward=False)
        callback = Evaluations(evaluation, steps // EVALUATIONS, report)
        model = PPO("MlpPolicy", training, seed=seed, device="cpu", **sb3_arguments(h))
        model.learn(steps, callback=callback)
        return callback.value

    return train


def sb3_arguments(h: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters as Stable-Baselines3 takes them."""
    import torch

    sizes = list(h["actor_network.layer_sizes"])
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[h["actor_network.activation"]]
    return dict(
        policy_kwargs=dict(net_arch=dict(pi=sizes, vf=sizes), activation_fn=activation),
        learning_rate=h["actor_lr"],
        gamma=h["gamma"],
        gae_lambda=h["gae_lambda"],
        clip_range=h["clip_eps"],
        ent_coef=h["ent_coef"],
        vf_coef=h["vf_coef"],
        max_grad_norm=h["max_grad_norm"],
        n_steps=h["rollout_length"],
        n_epochs=h["epochs"],
        batch_size=h["rollout_length"] * h["total_num_envs"] // h["num_minibatches"],
        normalize_advantage=h["standardize_advantages"],
    )


def new_study(sampler: str, pruner: str, seed: int) -> Any:
    """Returns a study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = optuna.samplers
    return optuna.create_study(
        direction="maximize",
        sampler=samplers.TPESampler(multivariate=True, seed=seed)
        if sampler == "tpe"
        else samplers.RandomSampler(seed=seed),
        pruner=asha() if pruner == "asha" else optuna.pruners.NopPruner(),
    )


def asha() -> Any:
    """Returns hyperlax's asynchronous successive halving; Optuna's has no rung at a third of ten evaluations."""
    from optuna.pruners import BasePruner

    class SuccessiveHalving(BasePruner):
        """Lets the best third of those that have come so far go on."""

        def prune(self, study: Any, trial: Any) -> bool:
            step = trial.last_step
            if step not in RUNGS:
                return False
            others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            reached = [t.intermediate_values[step] for t in others if step in t.intermediate_values]
            better = sum(value > trial.intermediate_values[step] for value in reached)
            return better >= max(1, (1 + len(reached)) // 3)

    return SuccessiveHalving()


def search(study: Any, train: Train, env: str, steps: int, seconds: float, seed: int) -> list[dict[str, Any]]:
    """Runs trials until the time is over and returns them; the last, which the end cuts short, does not count."""
    from optuna import TrialPruned

    space, trials, start = distributions(), [], time.perf_counter()

    def elapsed() -> float:
        return time.perf_counter() - start

    while elapsed() < seconds:
        began, cpu, trial = elapsed(), time.process_time(), study.ask(space)

        def report(number: int, value: float, trial: Any = trial) -> None:
            if elapsed() > seconds:
                raise Late
            trial.report(value, number)
            if number < EVALUATIONS and trial.should_prune():
                raise TrialPruned

        record: dict[str, Any] = dict(number=trial.number, params=values(trial.params), value=None, start=began)
        try:
            value = train(env, steps, {**values(trial.params), **FIXED}, seed + trial.number, report)
            record |= dict(state="complete", value=value) if math.isfinite(value) else dict(state="failed")
        except TrialPruned:
            record |= dict(state="pruned")
        except Late:
            record |= dict(state="unfinished")
        except Exception as error:  # whatever a configuration may bring about
            record |= dict(state="failed", error=f"{type(error).__name__}: {error}"[:300])
        record |= dict(end=elapsed(), cpu_seconds=time.process_time() - cpu)
        if record["end"] > seconds:
            record |= dict(state="unfinished", value=None)
        tell(study, trial, record)
        trials.append(record)
    return trials


def tell(study: Any, trial: Any, record: Mapping[str, Any]) -> None:
    """Tells the study how a trial ended."""
    from optuna.trial import TrialState

    if record["state"] == "complete":
        study.tell(trial, record["value"])
    elif record["state"] == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, state=TrialState.FAIL)


def summary(trials: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Returns how many trials ended how, and the best of those that were trained to their end."""
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["value"], default=None)
    counts = {state: sum(t["state"] == state for t in trials) for state in ("complete", "pruned", "failed")}
    return dict(
        **counts,
        finished_per_hour=3600 * (counts["complete"] + counts["pruned"]) / seconds,
        best_value=best and best["value"],
        best_params=best and best["params"],
    )


def parse() -> argparse.Namespace:
    """Returns the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print-space", action="store_true", help="print the space as JSON and stop")
    parser.add_argument("--peer", choices=("rejax", "sb3"), default="rejax")
    parser.add_argument("--env", choices=tuple(ENVIRONMENTS), default="cartpole")
    parser.add_argument("--seconds", type=float, default=300.0, help="wall time of the study, compilation included")
    parser.add_argument("--steps", type=int, default=61_440, help="environment steps of a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--pruner", choices=("asha", "none"), default="asha", help="rejax has no use for one")
    parser.add_argument("--retrain", type=int, default=0, help="train the best of --output so often anew: no search")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--cpu", type=int, help="the only core to run on")
    parser.add_argument("--output", type=Path, default=Path("search_peer.json"))
    return parser.parse_args()


def main() -> None:
    """Searches, or trains the best of a search anew, and writes what came of it."""
    arguments = parse()
    if arguments.print_space:
        return print(json.dumps(dict(space=SPACE, fixed=FIXED, tied=TIED), indent=2))
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})  # before a library counts the cores
    train = rejax_trainer() if arguments.peer == "rejax" else sb3_trainer(arguments.threads)
    env, seed = ENVIRONMENTS[arguments.env], 10_000 * arguments.seed
    if arguments.retrain:
        result = json.loads(arguments.output.read_text(encoding="utf-8"))
        best = {**result["best_params"], **FIXED}
        seeds = range(seed + 9_000, seed + 9_000 + arguments.retrain)
        returns = [train(env, arguments.steps, best, s, lambda number, value: None) for s in seeds]
        result["retrained"] = [value if math.isfinite(value) else None for value in returns]
    else:
        study = new_study(arguments.sampler, arguments.pruner, arguments.seed)
        trials = search(study, train, env, arguments.steps, arguments.seconds, seed)
        result = summary(trials, arguments.seconds)
        result |= dict(retrained=[], versions=versions(), command=command(), trials=trials)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k not in ("trials", "versions")}))


def versions() -> dict[str, str]:
    """Returns the versions of the packages that are installed here."""
    installed = {
        distribution.name.lower().replace("_", "-"): distribution.version for distribution in metadata.distributions()
    }
    return {"python": platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed}}


def command() -> str:
    """Returns the command line without the folders that only this machine has."""
    words = [word if not word.startswith("/") else f".../{Path(word).name}" for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


if __name__ == "__main__":
    main()
