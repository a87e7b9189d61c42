"""How busy lanes and cores are in a search whose trials end, are pruned and make room for others.

    python benchmarks/utilisation.py                     `make bench-search`

The space is that of `search_peer.py`: structures and networks differ between trials, so that an update of one costs
many times that of another. Written to ``benchmark_results/search/utilisation.md``, with every round as CSV.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report
import search_hyperlax

PARTS = 10


def shares(rounds: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each tenth of the time, how busy lanes and cores were, and what the host took between ticks."""
    start, end = rounds["wall_seconds_start"].to_numpy(), rounds["wall_seconds_end"].to_numpy()
    seconds = end - start
    edges = np.linspace(start[0], end[-1], PARTS + 1)
    part = np.clip(np.searchsorted(edges, (start + end) / 2) - 1, 0, PARTS - 1)
    table = pd.DataFrame({
        "part": part,
        "seconds": seconds,
        "lanes": seconds * rounds["lanes_busy"] / rounds["lanes"],
        "cores": rounds["cpu_seconds"] / rounds["devices"],
        "host": seconds - rounds["run_seconds"],
    })  # fmt: skip
    sums = pd.concat([table.groupby("part").sum(), table.drop(columns="part").sum().to_frame("all").T])
    return sums[["lanes", "cores", "host"]].div(sums["seconds"], axis=0).assign(seconds=sums["seconds"])


class Stopwatch:
    """Counts the seconds that are spent in some methods of a class."""

    def __init__(self, owner: type, *names: str) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main() -> None:
    """Searches, tabulates and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="gymnax.cartpole")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--steps", type=int, default=61_440)
    parser.add_argument("--pruner", default="asha")
    parser.add_argument("--seed", type=int, default=2001)
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "search")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import hyperlax
    from hyperlax.search.study import Study

    study = Stopwatch(Study, "create", "suggest", "report", "finish")
    with tempfile.TemporaryDirectory() as folder:
        run = hyperlax.optimize(
            search_hyperlax.recipe(), args.env, num_trials=args.trials, pruner=args.pruner, seed=args.seed,
            run_length=args.steps, num_seeds=1, num_evaluations=10, num_eval_episodes=16, winner_seeds=0,
            output_root=folder, save_policies=False, progress=False, plot=False,
        )  # fmt: skip
    table, program = shares(run.rounds), run.info["programs"][0]
    rows = [
        [name if name == "all" else name + 1, f"{row.seconds:.1f}", f"{row.lanes:.0%}", f"{row.cores:.0%}",
         f"{row.host:.0%}"]
        for name, row in table.iterrows()
    ]  # fmt: skip
    text = [
        report.heading("How busy lanes and cores are", versions=report.our_versions()),
        f"{args.trials} trials of {args.env}, {args.steps:,} steps, TPE with {args.pruner}: "
        f"{json.dumps(run.info['trials'])}; {program['lanes']} lanes, {len(run.rounds)} rounds, "
        f"{program['ticks']} ticks. The study was asked, and told, for {study.seconds:.2f} s, "
        f"{study.seconds / table['seconds'].iloc[-1]:.1%} of the time. By tenths of the time from the first lane on; "
        "in the last, trials run out.\n",
        "Lanes: that had a trial. Cores: CPU seconds of ticks and evaluations over all cores. Host: from one tick to "
        "the next, in which trials are asked for and told, and results written.\n",
        report.table(["tenth", "seconds", "lanes busy", "cores busy", "host"], rows),
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    run.rounds.to_csv(args.output / "utilisation.csv", index=False, lineterminator="\n")
    report.write(args.output / "utilisation.md", "\n".join(text))


if __name__ == "__main__":
    main()
