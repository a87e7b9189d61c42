"""The quick start, typed as printed, twice: with an empty compilation cache, then with what that left.

Installation is warm: byte code is compiled and matplotlib knows its fonts before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

QUICKSTART = shlex.split(
    "sweep-hp-samples --algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum "
    "--run-length-modifier quick --num-samples 4 --hparam-batch-size 4 --log-level INFO --output-root"
)
TARGETS = "wanted: under 30 s, under 15 s the second time (the original: 131 CPU-seconds and 661 compilations)"


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables of a user whose caches lie in a folder of their own."""
    unusual = ("JAX_", "PYTHONDONTWRITEBYTECODE")  # without bytecode every import compiles all sources again
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unusual)}
    return {**kept, "XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "matplotlib")}


def warm(env: dict[str, str]) -> None:
    """Does what the first use after an installation does, but trains nothing."""
    subprocess.run([sys.executable, "-c", "import hyperlax.api, gymnax, matplotlib.pyplot"], env=env, check=True)


def timed(env: dict[str, str], output: Path) -> dict[str, float]:
    """Runs the quick start and returns wall seconds, CPU seconds and compilations."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "hyperlax", *QUICKSTART, str(output)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"the quick start failed:\n{process.stdout[-3000:]}")
    return {
        "seconds": seconds,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "compilations": process.stdout.count("Finished XLA compilation"),
    }


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = report.ROOT / "benchmark_results" / "quickstart"
    parser.add_argument("--rounds", type=int, default=3, help="times both are measured, from an empty cache each (3)")
    parser.add_argument("--output", type=Path, default=default, help="folder of the results")
    args = parser.parse_args()
    rows = []
    for number in range(1, args.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            env = environment(Path(folder))
            warm(env)
            for which in ("empty cache", "second time"):
                row = timed(env, Path(folder) / "results")
                rows.append([f"{number}, {which}", f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", None])
                print(*rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        row = timed({**environment(Path(folder)), "JAX_LOG_COMPILES": "1"}, Path(folder) / "results")
        rows.append(["counting compilations, empty cache", None, None, int(row["compilations"])])
    heading = report.heading(
        "The quick start",
        versions=report.our_versions(),
        measured=f"`hyperlax {' '.join(QUICKSTART)} FOLDER`; the whole process, imports included",
        targets=TARGETS,
    )
    text = report.table(["round", "wall s", "CPU s", "compilations"], rows)
    print(text)
    report.write(args.output / "quickstart.md", f"{heading}\n{text}")


if __name__ == "__main__":
    main()
