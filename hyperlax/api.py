"""The library in two calls: :func:`sweep` trains, :func:`load_policy` gives back what was learnt."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hyperlax import runs
from hyperlax.algorithms import ALGORITHMS
from hyperlax.engine import devices
from hyperlax.engine.plan import Plan
from hyperlax.engine.planner import Planner
from hyperlax.engine.program import Task
from hyperlax.engine.sweep import Sweep
from hyperlax.environments import Environment, make
from hyperlax.errors import RunFailed, UserError, unknown
from hyperlax.networks import NETWORKS, kinds
from hyperlax.recipes import Recipe, RunLength
from hyperlax.results import resume as resuming
from hyperlax.results.progress import Progress
from hyperlax.results.reader import Run, load_policy_arrays, load_run
from hyperlax.results.writer import RunWriter
from hyperlax.spaces.distributions import Categorical, Distribution, show
from hyperlax.spaces.files import RESULT_COLUMNS, Sample, canonical_name, read_samples
from hyperlax.spaces.hyperparameters import declarations, flatten, replace
from hyperlax.spaces.samplers import draw, draw_matrices, varied

log = logging.getLogger(__name__)

EXPERIMENT_TYPES = ("independent_samples", "sobol_matrices_A_B_AB")
Samples: TypeAlias = str | os.PathLike[str] | pd.DataFrame | Sequence[Mapping[str, object] | Sample]


def make_env(name: str, **options: Any) -> Environment:
    """Returns a new environment; see :func:`hyperlax.environments.make`.

    Some suites start JAX when they are imported: every core is made a device before.
    """
    devices.configure()
    return make(name, **options)


def sweep(
    recipe: str | Recipe,
    env: str | Environment,
    *,
    num_samples: int | None = None,
    samples: Samples | None = None,
    overrides: Mapping[str, object] | None = None,
    sampling_method: str = "qmc_sobol",
    experiment_type: str = "independent_samples",
    seed: int = 42,
    run_length: str | int | RunLength = "default",
    num_seeds: int | None = None,
    num_evaluations: int | None = None,
    num_eval_episodes: int | None = None,
    hparam_batch_size: int | Literal["auto"] = "auto",
    sequential: bool = False,
    group_by_structure: bool = False,
    num_devices: int | None = None,
    kernel: str | None = None,
    memory_limit_gib: float | None = None,
    winner_seeds: int | None = None,
    output_root: str | os.PathLike[str] = "results",
    dry_run: bool = False,
    save_policies: bool = True,
    progress: bool = True,
    plot: bool = True,
    resume: bool = False,
    resume_from: str | os.PathLike[str] | None = None,
) -> Run | Plan:
    """Trains many configurations and returns their results.

    Args:
        recipe: a name or a :class:`~hyperlax.recipes.Recipe`.
        env: a name or an :class:`~hyperlax.environments.Environment`.
        num_samples: configurations to draw from the recipe's space, 16 by default (with ``grid`` all
            that there are); of given ``samples`` the first so many, all by default.
        samples: configurations to train instead: a CSV or JSON file, a frame or a list, each with the
            values that differ from the recipe's defaults.
        overrides: values that every sample has; they are not drawn.
        sampling_method: see :data:`hyperlax.spaces.samplers.SAMPLERS`.
        experiment_type: with ``sobol_matrices_A_B_AB``, ``num_samples`` are the rows of each matrix of the design from
            which Sobol indices are estimated: with d hyperparameters d + 2 times as many samples are trained.
        seed: of all randomness, samples included; 0 or more.
        run_length: ``quick``, ``default``, ``long``, or the environment steps of each (sample, seed).
        num_seeds: repetitions of every sample; None for those of ``run_length``.
        num_evaluations: points of the common grid of environment steps.
        num_eval_episodes: greedy episodes at each of them.
        hparam_batch_size: configurations trained at once, or ``"auto"``.
        sequential: one (sample, seed) after the other, each in its exact shape.
        group_by_structure: one program for each distinct structure.
        num_devices: devices to use, all by default.
        kernel: what simulates quantum circuits from now on, see :func:`hyperlax.quantum.executor.choose`.
        memory_limit_gib: what lanes may use; by default 80% of what there is, or of what is free if that is too little.
        winner_seeds: fresh seeds on which the best sample is trained again, so that its score is not
            that of a selection; by default as many as ``num_seeds``, 0 for not at all.
        output_root: results go to ``output_root/ppo_mlp/gymnax_pendulum/run_001``.
        dry_run: returns the plan; nothing is compiled and nothing written.
        save_policies: keep every final policy.
        progress: show how far it is, on standard error.
        plot: draw ``sweep.png`` in the run directory.
        resume: go on with the latest run below ``output_root`` that was asked the same, if it was cut short; return it
            if it has finished; begin where there is none.
        resume_from: the directory of the run to go on with.

    Returns:
        The results as frames, or the plan.

    Raises:
        UserError: an argument is wrong; the message says what is accepted.
    """
    recipe, env, length = runs.resolved(
        recipe, env, run_length, seed, kernel,
        num_seeds=num_seeds, num_evaluations=num_evaluations, num_eval_episodes=num_eval_episodes,
    )  # fmt: skip
    if experiment_type not in EXPERIMENT_TYPES:
        raise unknown("experiment type", experiment_type, EXPERIMENT_TYPES)
    matrices = experiment_type == EXPERIMENT_TYPES[1]
    if matrices and samples is not None:
        raise UserError(f"experiment type {experiment_type} draws its samples: none can be given")
    method = experiment_type if matrices else sampling_method
    drawn = _samples(recipe, num_samples, samples, overrides or {}, method, seed)
    tasks = _tasks(recipe, env, drawn, overrides or {}, length)
    if winner_seeds is None:
        winner_seeds = length.num_seeds
    request = runs.request_of(
        "sweep", recipe, env, length, seed=seed, winner_seeds=winner_seeds, save_policies=save_policies,
        samples=resuming.digest_of([(task.sample_id, flatten(task.hyperparams)) for task in tasks]),
        hparam_batch_size=hparam_batch_size, sequential=sequential, group_by_structure=group_by_structure,
        memory_limit_gib=memory_limit_gib,
    )  # fmt: skip
    earlier = runs.earlier_run(output_root, recipe.group, env.name, request, resume, resume_from)
    if earlier is not None and earlier.finished and not dry_run:
        log.info("%s has finished, nothing is left to do", earlier.directory)
        return _completed(earlier.directory, plot, matrices, anew=False)
    max_lanes = _max_lanes(hparam_batch_size, length)
    mesh = devices.local_mesh(1 if sequential else num_devices, min(max_lanes or len(tasks), len(tasks)))
    memory = runs.memory_limit(memory_limit_gib) if earlier is None else earlier.memory
    plan, planner = _plan(env, length, tasks, mesh, max_lanes, memory, sequential, group_by_structure)
    space = recipe.space if samples is None else {}
    warn = partial(_warn_of_confounding, {} if matrices else space, drawn, sampling_method)
    if dry_run:
        warn()
        return plan
    info = runs.describe_run(recipe, env, length, overrides or {}, space, seed, plan, mesh)
    info |= {"request": request, "planned_memory": planner.memory, "experiment_type": experiment_type}
    if matrices:
        info["matrices"] = varied(space, overrides or {})
    place = runs.run_directory(earlier, output_root, recipe.group, env.name, resume)
    with place as directory, resuming.resumable(directory):
        warn()
        log.info("results go to %s; the plan:\n%s", directory, plan.describe())
        job = Sweep(env, length, planner, plan, mesh, seed, save_policies, directory / "checkpoints")
        _carry_out(job, directory, info, winner_seeds, progress, earlier is not None)
        return _completed(directory, plot, matrices, anew=True)


def _carry_out(
    job: Sweep, directory: Path, info: Mapping[str, Any], winner_seeds: int, progress: bool, resumed: bool
) -> None:
    """Trains what a run directory does not have yet, then its winner again on fresh seeds.

    Raises:
        RunFailed: some samples failed.
    """
    if resumed:
        job.go_on_from(directory)
    firsts = [task for task in job.tasks if task.seed == 0]
    everything = [Sample(task.sample_id, flatten(task.hyperparams)) for task in firsts]
    with RunWriter(directory, info, everything, range(job.length.num_seeds)) as writer:
        steps = len(job.tasks) * job.length.total_timesteps
        with Progress(len(firsts), steps, enabled=progress) as display:
            try:
                job.run(writer, display)
                winner = runs.winner(directory, winner_seeds, job.repeat_on_fresh_seeds)
            except RunFailed as error:
                raise RunFailed(f"{error}; results so far: {directory}") from error
            finally:
                writer.update_info(programs=job.outcome(), seconds=round(job.clock(), 2))
        writer.update_info(winner=winner)


def _completed(directory: Path, plot: bool, matrices: bool, anew: bool) -> Run:
    """Returns a run that has finished, after making what is made of its results, ``anew`` or where it is missing."""
    if matrices and (anew or not (directory / "sensitivity.csv").exists()):
        from hyperlax.analysis.sensitivity import write_sensitivity

        write_sensitivity(load_run(directory), directory / "sensitivity")
    return runs.completed(directory, plot, anew)


def _samples(
    recipe: Recipe,
    num_samples: int | None,
    samples: Samples | None,
    overrides: Mapping[str, object],
    method: str,
    seed: int,
) -> list[Sample]:
    """Draws samples, or reads them from a file, a frame or a list."""
    space = recipe.searched(overrides)
    if samples is None:
        if not space:
            raise UserError("nothing is left to draw: every hyperparameter of the space has a fixed value")
        if method == EXPERIMENT_TYPES[1]:
            return draw_matrices(space, num_samples, seed)
        return draw(space, num_samples, method, seed)
    given = (
        read_samples(samples, declarations(recipe.defaults))
        if isinstance(samples, str | os.PathLike)
        else _listed(samples)
    )
    if num_samples is not None and not 1 <= num_samples <= len(given):
        raise UserError(f"num_samples {num_samples}: {len(given)} samples are given, accepted is 1 … {len(given)}")
    return given[:num_samples]


def _warn_of_confounding(space: Mapping[str, Distribution], samples: Sequence[Sample], method: str) -> None:
    """Says which choices determine each other: few points of a sequence in many dimensions repeat their pattern."""
    chosen = [name for name, distribution in space.items() if isinstance(distribution, Categorical)]
    columns = {name: [show(s.values[name]) for s in samples] for name in chosen if name in samples[0].values}
    varied = {name: column for name, column in columns.items() if len(set(column)) > 1}
    together = [
        (a, b)
        for a, b in itertools.combinations(varied, 2)
        if len(set(zip(varied[a], varied[b], strict=True))) == max(len(set(varied[a])), len(set(varied[b])))
    ]
    if together and len(samples) >= 8:
        (a, b), others = together[0], len(together) - 1
        more = f" and {others} more pair{'s' * (others > 1)}" if others else ""
        log.warning(
            "%d samples by %s of %d hyperparameters: %s and %s%s always change together, so that their effects cannot "
            "be told apart; %d samples, or lhs, do better",
            *(len(samples), method, len(space), a, b, more, 2 * len(samples)),
        )


def _listed(samples: pd.DataFrame | Sequence[Mapping[str, object] | Sample]) -> list[Sample]:
    """Returns the samples of a frame or a list; without ids they are numbered from 0."""
    rows: list[Any] = _records(samples) if isinstance(samples, pd.DataFrame) else list(samples)
    if not rows:
        raise UserError("samples are empty: at least one is needed")
    out = []
    for number, row in enumerate(rows):
        if not isinstance(row, Sample):
            if not isinstance(row, Mapping):
                raise UserError(f"samples {samples!r}: accepted is a file, a frame, or a list of one mapping a sample")
            values = {str(name): value for name, value in row.items() if name != "sample_id"}
            sample_id: Any = row.get("sample_id", number)
            if not isinstance(sample_id, int | np.integer) or sample_id < 0:
                raise UserError(f"sample_id {sample_id!r}: accepted is a whole number, 0 or more")
            row = Sample(int(sample_id), values)
        out.append(row)
    if len({sample.sample_id for sample in out}) < len(out):
        raise UserError("samples have duplicate ids: every sample_id may occur once")
    return out


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the rows of a frame whose columns may be those of a published table or of a summary."""
    names = {column: canonical_name(str(column)) for column in frame.columns}
    kept = [column for column, name in names.items() if name not in RESULT_COLUMNS]
    return [
        {str(key): value for key, value in row.items()} for row in frame[kept].rename(columns=names).to_dict("records")
    ]


def _tasks(
    recipe: Recipe, env: Environment, samples: Sequence[Sample], overrides: Mapping[str, object], length: RunLength
) -> list[Task]:
    """Returns every (sample, seed) with its complete, checked hyperparameters."""
    defaults = replace(recipe.defaults_for(env.name), overrides)
    runs.check_actions(recipe, env)
    tasks = []
    for sample in samples:
        try:
            hyperparams = runs.configured(defaults, {**sample.values, **overrides}, env)
        except UserError as error:
            raise UserError(f"sample {sample.sample_id}: {error}") if len(samples) > 1 else error from None
        tasks += [Task(sample.sample_id, repetition, hyperparams) for repetition in range(length.num_seeds)]
    each = [task.hyperparams for task in tasks[:: length.num_seeds]]
    _check_learning_starts(each, length.total_timesteps)
    for what, count in Counter(_doubtful(hyperparams, length.total_timesteps) for hyperparams in each).items():
        if what:
            log.warning("%d of %d samples %s", count, len(samples), what)
    return tasks


def _check_learning_starts(samples: Sequence[Any], budget: int) -> None:
    """Raises UserError if none would learn anything within the budget."""
    soonest = min(samples, key=lambda hyperparams: hyperparams.learning_starts)
    if (starts := soonest.learning_starts) >= budget:
        raise UserError(
            f"warmup_rollout_length {soonest.warmup_rollout_length} × total_num_envs {soonest.total_num_envs} = "
            f"{starts}: learning would start beyond the budget of {budget} steps; accepted: fewer of them, or a budget "
            f"above {starts}"
        )


def _doubtful(hyperparams: Any, budget: int) -> str:
    """Returns what is accepted, but hardly meant, about when a sample learns."""
    if hyperparams.learning_starts >= budget:
        return f"would start to learn beyond the budget of {budget} steps (warmup_rollout_length × total_num_envs)"
    steps = hyperparams.steps_per_update
    if steps > 2 * budget:
        return f"take more than twice the budget of {budget} steps in a single update (rollout_length × total_num_envs)"
    if steps > getattr(hyperparams, "total_buffer_size", steps):
        return "collect more in an update than total_buffer_size holds: the rest is never learnt from"
    return ""


def _max_lanes(batch_size: int | str, length: RunLength) -> int | None:
    """Returns the most lanes that a program may have."""
    if batch_size == "auto":
        return None
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"hparam_batch_size {batch_size!r}: accepted is 'auto' or a whole number from 1")
    return batch_size * length.num_seeds


def _plan(
    env: Environment,
    length: RunLength,
    tasks: Sequence[Task],
    mesh: Any,
    max_lanes: int | None,
    limit: int | None,
    sequential: bool,
    group_by_structure: bool,
) -> tuple[Plan, Planner]:
    """Returns the plan and the planner that made it; the limit is in bytes."""
    machine = runs.machine_of(mesh)

    def planned(memory: int) -> tuple[Plan, Planner]:
        evaluations = length.num_evaluations, length.num_eval_episodes
        planner = Planner(env, length.total_timesteps, mesh.size, machine, memory, max_lanes, *evaluations)
        if sequential:
            return planner.sequential(tasks), planner
        return planner.grouped(tasks) if group_by_structure else planner.batched(tasks), planner

    return runs.planned_within(limit, mesh, planned)


def load_policy(
    path: str | os.PathLike[str], sample_id: int, seed: int | None = None, env: Environment | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Returns the greedy policy of one trained sample as a jitted function.

    Args:
        path: a run directory.
        sample_id: of the sample.
        seed: which repetition; the first that was saved if None.
        env: the environment it was trained on, if that is not one that :func:`hyperlax.make_env` knows.

    Returns:
        ``act(observation)``: for one observation ``observation_shape`` or a batch of them the action,
        as the environment's ``step`` takes it.

    Raises:
        UserError: there is no such policy.
    """
    restored = restore_policy(path, sample_id, seed, env)
    environment, agent, policy, lane = restored.env, restored.agent, restored.policy, restored.lane
    observation_shape = tuple(environment.observation_shape)

    @jax.jit
    def act(observation: jax.Array) -> jax.Array:
        single = observation.ndim == len(observation_shape)
        batch = observation[None] if single else observation
        if batch.shape[1:] != observation_shape:
            raise UserError(
                f"observations of shape {observation.shape}: accepted are one of {environment.name}, "
                f"{observation_shape}, and batches of them"
            )
        actions = agent.act(policy, lane, batch.reshape(batch.shape[0], -1))
        return actions[0] if single else actions

    return lambda observation: act(jnp.asarray(observation))


class RestoredPolicy(NamedTuple):
    """A saved policy with all that is needed to act by it, or to look at it.

    Attributes:
        path: of the run.
        info: ``run.json``.
        details: what was saved with the policy: its sample, its seed and its hyperparameters.
        arrays: parameters by path, ``actor/head/bias`` and so on.
        env: the environment.
        hyperparams: the algorithm's dataclass.
        agent: compiled for exactly this configuration.
        lane: its traced hyperparameters.
        policy: as the agent takes it.
    """

    path: Path
    info: dict[str, Any]
    details: dict[str, Any]
    arrays: dict[str, np.ndarray]
    env: Environment
    hyperparams: Any
    agent: Any
    lane: Any
    policy: Any


def restore_policy(
    path: str | os.PathLike[str], sample_id: int, seed: int | None = None, env: Environment | None = None
) -> RestoredPolicy:
    """Returns a saved policy with its agent; the arguments are those of :func:`load_policy`."""
    run = load_run(Path(path))
    arrays, details = load_policy_arrays(run.path, sample_id, seed)
    info = run.info
    environment = env if env is not None else make_env(details["environment"])
    algorithm = ALGORITHMS[info["algorithm"]]
    for kind in kinds(algorithm, info["network"]).values():
        if kind not in NETWORKS:
            raise UserError(f"network '{kind}' of {os.fspath(path)} is not known: hyperlax.register_network adds it")
    networks = {role: NETWORKS[kind]() for role, kind in kinds(algorithm, info["network"]).items()}
    hyperparams = replace(algorithm(**networks), details["hyperparameters"])
    shape = hyperparams.shape(environment)
    agent, lane = hyperparams.agent(environment, shape), hyperparams.traced(shape, 1)
    return RestoredPolicy(run.path, info, details, arrays, environment, hyperparams, agent, lane, agent.restore(arrays))
