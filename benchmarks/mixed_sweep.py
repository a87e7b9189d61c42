"""A mixed sweep, the published 64 PPO-MLP configurations of CartPole: batched against one by one.

Every sweep runs in a process of its own with an empty compilation cache, one seed, one evaluation at the end,
and without training the winner again. One by one, each (sample, seed) runs alone in its exact shape on one
device, while the next program compiles. That is measured in full at the first number of steps; at the others it
is measured with --full, and else computed from the seconds an update of each sample took there. Of a sweep longer
than --longest, the plan for the whole length is carried out that far, and its training time scaled.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import report

PUBLISHED = Path("../shared/reference/hyperlax_published/gymnax.cartpole_ppo-mlp_summary.csv")
RECIPE, ENVIRONMENT = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp", "gymnax.cartpole"
TARGETS = "wanted: 4.5, 3 and 2.3 times faster at 100k, 500k and 5M steps (a paper model: 5.6, 3.3 and 2.6)"


@dataclass(frozen=True)
class Outcome:
    """One sweep.

    Attributes:
        mode: ``batched``, ``one by one`` or ``one by one, extrapolated``.
        steps: environment steps of each sample.
        samples: how many.
        seconds: of the whole process, imports and compilation included.
        sweep_seconds: without imports, plan and pictures.
        predicted_seconds: by the planner.
        programs: compiled.
        compile_seconds: of all programs; some of it while others ran.
        waited_seconds: for compilation, while nothing ran.
        run_seconds: of training and evaluation.
        padding: share of the arithmetic that no sample asked for.
        lanes_busy: share of the lanes' updates that trained something, weighted by time.
        median_final_return: over samples.
        share: of the steps that were run, the plan being that of all; what is beyond is scaled.
    """

    mode: str
    steps: int
    samples: int
    seconds: float
    sweep_seconds: float
    predicted_seconds: float
    programs: int
    compile_seconds: float
    waited_seconds: float
    run_seconds: float
    padding: float
    lanes_busy: float
    median_final_return: float
    share: float = 1.0


# --- one sweep, in a process of its own ----------------------------------------------------------


def child(arguments: str) -> None:
    """Runs one sweep and prints where its run directory is."""
    import hyperlax
    from hyperlax import api
    from hyperlax.errors import UserError

    options = json.loads(arguments)
    planned = options.pop("planned_steps")
    ordinary = api._plan
    api._plan = lambda env, length, *rest: ordinary(env, replace(length, total_timesteps=planned), *rest)
    options |= {"num_seeds": 1, "num_evaluations": 1, "winner_seeds": 0, "plot": False, "progress": False}
    try:
        run = hyperlax.sweep(RECIPE, ENVIRONMENT, **options)
    except UserError as error:
        raise SystemExit(f"mixed_sweep.py: {error}") from None
    print(json.dumps({"path": str(run.path)}), flush=True)


def measure(mode: str, steps: int, args: argparse.Namespace, folder: Path) -> tuple[Outcome, Any]:
    """Returns what a sweep took, and its run."""
    from hyperlax import load_run

    run_steps = min(steps, args.longest)
    options = {"samples": str(args.samples_file), "run_length": run_steps, "planned_steps": steps}
    options["output_root"] = str(folder / f"{mode} {steps}")
    options["sequential"] = mode != "batched"
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        process = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(options)],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(process.returncode)
    run = load_run(report.last_json(process.stdout)["path"])
    return _scaled(_outcome(mode, run_steps, seconds, run), steps), run


def _scaled(outcome: Outcome, steps: int) -> Outcome:
    """Returns what the sweep would have taken for all its steps."""
    if steps == outcome.steps:
        return outcome
    longer = outcome.run_seconds * (steps / outcome.steps - 1)
    return replace(
        outcome,
        steps=steps,
        seconds=outcome.seconds + longer,
        sweep_seconds=outcome.sweep_seconds + longer,
        run_seconds=outcome.run_seconds + longer,
        median_final_return=float("nan"),
        share=outcome.steps / steps,
    )


def _outcome(mode: str, steps: int, seconds: float, run: Any) -> Outcome:
    programs = run.info["programs"]
    total = {name: sum(p[f"{name}_seconds"] for p in programs) for name in ("compile", "waited_for_compilation", "run")}
    return Outcome(
        mode=mode,
        steps=steps,
        samples=len(run.samples),
        seconds=seconds,
        sweep_seconds=run.info["seconds"],
        predicted_seconds=run.info["predicted_seconds"],
        programs=len(programs),
        compile_seconds=total["compile"],
        waited_seconds=total["waited_for_compilation"],
        run_seconds=total["run"],
        padding=sum(p["predicted_padding"] * p["run_seconds"] for p in programs) / max(total["run"], 1e-9),
        lanes_busy=sum(p["lanes_busy"] * p["run_seconds"] for p in programs) / max(total["run"], 1e-9),
        median_final_return=float(run.summary["final_return"].median()),
    )


# --- one by one, for longer ----------------------------------------------------------------------


def steady_state(run: Any) -> pd.DataFrame:
    """Returns what one update of each program of a sequential run takes, compilation and evaluation apart.

    Returns:
        One row a program, in the order of the run: ``compile``, ``update`` and ``evaluation`` (of one task)
        seconds, ``steps_per_update`` and ``tasks``.
    """
    samples = run.samples.set_index("sample_id")
    rows = []
    for program in run.info["programs"]:
        # Samples share a program only if they are of one shape, and so of one number of steps per update.
        sample = samples.loc[program["samples"][0]]
        per_update = int(sample["rollout_length"]) * int(sample["total_num_envs"])
        done = run.lanes[run.lanes["sample_id"].isin(program["samples"])]["env_steps"].sum() / per_update
        rows.append(
            {
                "program": program["program"],
                "compile": program["compile_seconds"],
                "update": (program["run_seconds"] - program["evaluation_seconds"]) / max(done, 1),
                "evaluation": program["evaluation_seconds"] / program["tasks"],
                "steps_per_update": per_update,
                "tasks": program["tasks"],
            }
        )
    return pd.DataFrame(rows)


def pipeline(compiling: list[float], running: list[float]) -> tuple[float, float]:
    """Returns when the last program ends, and the time spent waiting, if the next compiles while one runs.

    A program is given to the compiler, which takes one at a time, when the one before it begins to be waited for.
    """
    compiled = waited = 0.0
    begins, ends = 0.0, 0.0  # of the program before: when it began to be waited for, when it ended
    for compile_seconds, run_seconds in zip(compiling, running, strict=True):
        compiled = max(compiled, begins) + compile_seconds
        waited += max(0.0, compiled - ends)
        begins, ends = ends, max(ends, compiled) + run_seconds
    return ends, waited


def extrapolate(measured: Outcome, run: Any, steps: int) -> Outcome:
    """Returns what a sequential sweep of other length would take, from what each update of a measured one took."""
    state = steady_state(run)

    def running(length: int) -> list[float]:
        updates = -(-length // state["steps_per_update"])
        return list(state["tasks"] * (updates * state["update"] + state["evaluation"]))

    # What the model leaves out (starting lanes, writing results) it leaves out of the measured run as well.
    modelled, _ = pipeline(list(state["compile"]), running(measured.steps))
    seconds, waited = pipeline(list(state["compile"]), running(steps))
    overhead = max(0.0, measured.sweep_seconds - modelled)
    return replace(
        measured,
        mode=f"{measured.mode}, extrapolated",
        steps=steps,
        seconds=seconds + overhead + measured.seconds - measured.sweep_seconds,
        sweep_seconds=seconds + overhead,
        predicted_seconds=float("nan"),
        waited_seconds=waited,
        run_seconds=sum(running(steps)),
        median_final_return=float("nan"),
    )


# --- everything ----------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> None:
    """Measures all sweeps, writing after each, and then the tables."""
    outcomes: list[Outcome] = []
    folder = Path(args.keep or tempfile.mkdtemp(prefix="mixed_sweep_"))
    reference: tuple[Outcome, Any] | None = None
    for steps in args.steps:
        outcomes.append(_told(measure("batched", steps, args, folder)[0]))
        if reference is None:
            reference = measure("one by one", steps, args, folder)
            outcomes.append(_told(reference[0]))
        elif args.full:
            outcomes.append(_told(measure("one by one", steps, args, folder)[0]))
        else:
            outcomes.append(_told(extrapolate(*reference, steps)))
        args.output.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(map(asdict, outcomes)).to_csv(args.output / "sweeps.csv", index=False, float_format="%.5g")
        report.write(args.output / "mixed_sweep.md", tables(outcomes))
    if not args.keep:
        shutil.rmtree(folder)


def _told(outcome: Outcome) -> Outcome:
    print(f"{outcome.mode}, {outcome.steps} steps: {outcome.seconds:.1f} s, {outcome.programs} programs", flush=True)
    return outcome


def tables(outcomes: list[Outcome]) -> str:
    """Returns the comparison as Markdown."""
    heading = report.heading(
        f"A mixed sweep: {outcomes[0].samples} published PPO-MLP configurations of CartPole",
        versions=report.our_versions(),
        measured="each sweep in a process of its own with an empty compilation cache; wall time of the whole process; "
        "one seed, one evaluation; batched over all cores; one by one: each sample in its exact shape on one device, "
        "the next compiling on the other core meanwhile",
        extrapolated="from the seconds that an update, an evaluation and a compilation of each sample took in the "
        "measured run one by one; two at a time: half of all its compiling and running, the least that two "
        "processes side by side could take",
        targets=TARGETS,
    )
    return "\n".join([heading, _speeds(outcomes), "## The batched sweeps\n", _batched(outcomes)])


def _speeds(outcomes: list[Outcome]) -> str:
    columns = ["steps", "batched, s", "one by one, s", "", "times faster", "two at a time, s", "times faster"]
    rows = []
    for batched, alone in zip(outcomes[::2], outcomes[1::2], strict=True):
        pair = (alone.compile_seconds + alone.run_seconds) / 2
        how = "extrapolated" if "extrapolated" in alone.mode else "measured"
        ratios = [report.number(x / batched.seconds, 2) for x in (alone.seconds, pair)]
        seconds = [report.number(x, 0) for x in (batched.seconds, alone.seconds, pair)]
        rows.append([f"{batched.steps:,}", seconds[0], seconds[1], how, ratios[0], seconds[2], ratios[1]])
    return report.table(columns, rows)


def _batched(outcomes: list[Outcome]) -> str:
    columns = [
        "steps", "run of them", "programs", "padding", "lanes busy", "sweep, s", "predicted, s", "compiling, s",
        "waiting for it, s", "training, s", "median final return",
    ]  # fmt: skip
    rows = [
        [f"{o.steps:,}", f"{o.share:.0%}", o.programs, f"{o.padding:.0%}", f"{o.lanes_busy:.0%}"]
        + [
            report.number(x)
            for x in (o.sweep_seconds, o.predicted_seconds, o.compile_seconds, o.waited_seconds, o.run_seconds)
        ]
        + [report.number(o.median_final_return)]
        for o in outcomes
        if o.mode == "batched"
    ]
    return report.table(columns, rows)


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("samples_file", type=Path, nargs="?", default=report.ROOT / PUBLISHED, help="the published summary, a CSV")
    add("--steps", type=int, nargs="+", default=[100_000, 500_000, 5_000_000], help="of each sample")
    add("--longest", type=int, default=500_000, help="most steps that are really run of each sample")
    add("--full", action="store_true", help="measure one by one at all numbers of steps (hours)")
    add("--output", type=Path, default=report.ROOT / "benchmark_results" / "mixed_sweep", help="folder of the results")
    add("--keep", metavar="FOLDER", help="keep the run directories there")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    if not args.samples_file.is_file():
        parser.error(f"'{args.samples_file}': no such file; give the published summary CSV as the argument")
    if min(args.steps) < 1:
        parser.error("--steps must be 1 or more")
    compare(args)


if __name__ == "__main__":
    main()
