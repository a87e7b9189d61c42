"""Speed of circuit simulation against PennyLane and TensorCircuit-ng, alternating, each library in its own process.

    python benchmarks/circuits.py --peer-python .venv-circuits/bin/python       everything (`make bench-quantum`)
    python benchmarks/circuits.py --peer-python … --quick                       a few cells, to try it out
    python benchmarks/circuits.py --report                                      tables and picture from what is there

The circuit is hyperlax-quantum's (data re-uploading, three features a qubit, all Z measured), the gradient that of a
weighted sum of all outputs by parameters and inputs. Every cell is compiled by each library, the results are compared,
then the libraries run in turn, five rounds. Written to ``benchmark_results/circuits``: ``speed.csv``, a row a cell and
library, ``speed.json``, how it was measured, ``speed.md`` and ``speed.png``. Peers are left out where compiling would
take them many minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report
from circuits_worker import LIBRARIES, Job

HERE = Path(__file__).resolve().parent
OURS, PEERS = ("kernel", "jax"), ("pennylane", "tensorcircuit")
ROUNDS, SECONDS = 5, 0.25
WANTED = (
    "wanted, gradients, batches of 256 or more: 20 times PennyLane from 2 qubits on; 20 times TensorCircuit to 6 "
    "qubits, 10 times at 8, 5 times at 10; a fiftieth of the compile time; 60% of the core's peak for 4 to 8 qubits, "
    "45% at 10"
)


@dataclass(frozen=True)
class Cell:
    """One line of the tables.

    Attributes:
        job: what is simulated.
        cores: that every process is bound to.
        libraries: which take part.
    """

    job: Job
    cores: int
    libraries: tuple[str, ...]


def cells(quick: bool) -> Iterator[Cell]:
    """Yields what is measured; the peers' compile time grows with qubits and layers, so they are not in every cell."""
    everyone = (*OURS, *PEERS)
    if quick:
        yield Cell(Job(2, 5, 256, 1, True), 1, everyone)
        return
    for n in range(1, 11):
        for gradient in (False, True):
            yield Cell(Job(n, 5, 256, 1, gradient), 1, everyone)
    for n in (2, 4, 6):
        for batch in (16, 1024, 4096):
            yield Cell(Job(n, 5, batch, 1, True), 1, everyone)
    for n in (2, 4, 6, 8):
        yield Cell(Job(n, 5, 32, 16, True), 1, everyone)
    for n, layers in ((2, 10), (2, 15), (4, 10), (4, 15)):
        yield Cell(Job(n, layers, 256, 1, True), 1, everyone)
    for n in (6, 8, 10):
        for layers in (10, 15):
            yield Cell(Job(n, layers, 256, 1, True), 1, OURS)
    for n in (1, 3, 5, 7, 8, 9, 10):
        for batch in (16, 4096):
            yield Cell(Job(n, 5, batch, 1, True), 1, OURS)
    for n in (2, 4, 6):
        yield Cell(Job(n, 5, 256, 1, True), 2, everyone)
    for n in (8, 10):
        yield Cell(Job(n, 5, 256, 1, True), 2, OURS)
    for n in (2, 4, 6, 8, 10):
        yield Cell(Job(n, 5, 4096, 1, True), 2, OURS)


class Process:
    """One library, bound to some cores."""

    def __init__(self, library: str, python: str, cores: int) -> None:
        unwanted = ("JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
        env = {name: value for name, value in os.environ.items() if name not in unwanted}
        chosen = set(sorted(os.sched_getaffinity(0))[-cores:])
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            [python, str(HERE / "circuits_worker.py"), library], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env={**env, "JAX_PLATFORMS": "cpu"},
            preexec_fn=lambda: os.sched_setaffinity(0, chosen),
        )  # fmt: skip

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        self._errors.seek(0)
        sys.exit(f"error: a process of the benchmark has died\n{self._errors.read()[-2000:]}")

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.wait()
        self._errors.close()


def main() -> int:
    """Measures, writes and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PYTHON", help="interpreter that has the peers"
    )
    parser.add_argument("--output", type=Path, default=report.ROOT / "benchmark_results" / "circuits", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="a few cells")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), help="only these")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    table = args.output / "speed.csv"
    if not args.report:
        rows = list(measured(cells(args.quick), args.peer_python, args.libraries, table))
        print(f"{len(rows)} rows: {table.name}")
    write(pd.read_csv(table), json.loads((args.output / "speed.json").read_text()), args.output)
    return 0


def measured(todo: Iterable[Cell], peer: str, libraries: list[str], table: Path) -> Iterator[dict[str, Any]]:
    """Yields a row a cell and library, and writes all so far after every cell."""
    table.parent.mkdir(parents=True, exist_ok=True)
    about = {"command": report.command(), "machine": report.processor(), "versions": report.our_versions()}
    about["peers"] = _peer_versions(peer)
    about["peak_gflops"] = peak()
    table.with_suffix(".json").write_text(json.dumps(about, indent=1))
    processes: dict[tuple[str, int], Process] = {}
    rows: list[dict[str, Any]] = []
    try:
        for cell in todo:
            taking = [library for library in cell.libraries if library in libraries]
            for library in taking:
                if (library, cell.cores) not in processes:
                    python = peer if library in PEERS else sys.executable
                    processes[library, cell.cores] = Process(library, python, cell.cores)
            here = [processes[library, cell.cores] for library in taking]
            new = _cell(cell, taking, here)
            for row in new:
                print(" ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
            sys.stdout.flush()
            rows += new
            pd.DataFrame(rows).to_csv(table, index=False)
            yield from new
    finally:
        for process in processes.values():
            process.close()


def _cell(cell: Cell, libraries: list[str], processes: list[Process]) -> list[dict[str, Any]]:
    """Compiles a cell everywhere, compares the results, and runs the libraries in turn."""
    compiled = [process.ask(asdict(cell.job)) for process in processes]
    for library, answer in zip(libraries, compiled, strict=True):
        if not np.allclose(answer["norms"], compiled[0]["norms"], rtol=1e-3):
            sys.exit(f"error: {library} computes something else: {answer['norms']}, not {compiled[0]['norms']}")
    rounds = [[process.ask({"seconds": SECONDS})["seconds"] for process in processes] for _ in range(ROUNDS)]
    medians = np.median(rounds, axis=0)
    kernel = libraries.index("kernel") if "kernel" in libraries else -1
    return [
        {
            "library": library,
            "cores": cell.cores,
            **asdict(cell.job),
            "milliseconds": 1e3 * float(medians[i]),
            "compile_seconds": answer["compile_seconds"],
            "times_kernel": float(np.median([times[i] / times[kernel] for times in rounds])) if kernel >= 0 else None,
        }
        for i, (library, answer) in enumerate(zip(libraries, compiled, strict=True))
    ]


def peak() -> float | None:
    """Returns the multiply-add peak of one core in GFLOP/s, measured; None without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        build = ["g++", "-O3", "-march=native", "-mprefer-vector-width=512", str(HERE / "peak.cc"), "-o", str(program)]
        try:
            subprocess.run(build, check=True, capture_output=True)
            return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return None


def _peer_versions(python: str) -> dict[str, str]:
    names = ["jax", "pennylane", "tensorcircuit-ng"]
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


# --- tables and picture ------------------------------------------------------------------------


def operations_of(num_qubits: Any, num_layers: Any, gradient: Any) -> Any:
    """Returns the operations of the kernel's rotations for one input; the circuit has one layer more."""
    slopes = 14 * num_layers + 12 * (num_layers + 1)
    return num_qubits * 2.0**num_qubits * (14 * num_layers + np.where(gradient, slopes, 0))


def operations_run_back(num_qubits: Any, num_layers: Any, gradient: Any) -> Any:
    """Returns those of the usual adjoint method, which keeps no states: 14 a rotation forward, 44 for the gradient."""
    return num_qubits * 2.0**num_qubits * (num_layers + 1) * (14 + np.where(gradient, 44, 0))


def write(rows: pd.DataFrame, about: dict[str, Any], output: Path) -> None:
    """Writes ``speed.md`` and ``speed.png``."""
    top = about["peak_gflops"]
    for column, operations in (("gflops", operations_of), ("gflops_run_back", operations_run_back)):
        each = operations(rows["num_qubits"], rows["num_layers"], rows["gradient"])
        rows[column] = each * rows["batch"] * rows["lanes"] / rows["milliseconds"] / 1e6
    text = [
        "# Circuit simulation", "", f"- command: `{about['command']}`", f"- machine: {about['machine']}",
        f"- versions: {', '.join(f'{k} {v}' for k, v in about['versions'].items())}",
        f"- peers: {', '.join(f'{k} {v}' for k, v in about['peers'].items())}",
        f"- multiply-add peak of one core (benchmarks/peak.cc): {report.number(top)} GFLOP/s",
        f"- {WANTED}", "",
        "Times are medians of five rounds in which the libraries took turns; *×* is a library's time divided by the "
        "kernel's, the median of the rounds. GFLOP/s count what the kernel does to amplitudes by rotations and nothing "
        "else, no sine, no product of angles, no measurement: 14 operations a rotation, amplitude and input in every "
        "layer but the first, which makes a product state; for the gradient again as many on the way back, and 12 in "
        "every layer for the slopes. *Of peak, usual count* is the share if operations are counted as the adjoint "
        "method usually does them, without states that are kept: 14 a rotation forward, 44 more for the gradient.", "",
    ]  # fmt: skip
    usual = "num_layers == 5 and lanes == 1 and cores == 1"
    sections = {
        "Gradient: qubits (5 layers, batch 256, one core)": f"gradient and batch == 256 and {usual}",
        "Forward: qubits (5 layers, batch 256, one core)": f"not gradient and {usual}",
        "Gradient: batches (5 layers, one core)": f"gradient and batch != 256 and {usual}",
        "Gradient: 16 lanes (5 layers, batch 32 each, one core)": "gradient and lanes == 16 and cores == 1",
        "Gradient: depth (batch 256, one core)": "gradient and num_layers != 5 and cores == 1",
        "Gradient: two cores (5 layers)": "gradient and cores == 2",
    }
    for title, condition in sections.items():
        part = rows.query(condition)
        if len(part):
            text += [f"## {title}", "", _table(part, top)]
    report.write(output / "speed.md", "\n".join(text))
    _draw(rows, top, output / "speed.png")


def _table(rows: pd.DataFrame, top: float | None) -> str:
    keys = ["num_qubits", "num_layers", "batch"]
    lines = []
    for values, cell in rows.groupby(keys, sort=True):
        by = cell.set_index("library")
        line: list[Any] = [*map(str, values)]
        for library in LIBRARIES:
            if library not in by.index:
                line += [None, None, None]
                continue
            row = by.loc[library]
            ratio = None if library == "kernel" else report.number(row["times_kernel"])
            line += [report.number(row["milliseconds"], 3), ratio, report.number(row["compile_seconds"], 2)]
        del line[4]  # the kernel beside itself
        rates = [by[column].get("kernel") for column in ("gflops", "gflops_run_back")]
        cores = cell["cores"].iloc[0]
        shares = [None if top is None or rate is None else f"{100 * rate / top / cores:.0f}%" for rate in rates]
        lines.append([*line, report.number(rates[0], 0), *shares])
    columns = ["qubits", "layers", "batch", "kernel, ms", "compile, s"]
    columns += [
        name for library in ("JAX path", "PennyLane", "TensorCircuit") for name in (f"{library}, ms", "×", "compile, s")
    ]
    return report.table([*columns, "kernel GFLOP/s", "of peak", "of peak, usual count"], lines)


def _draw(rows: pd.DataFrame, top: float | None, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    names = {"kernel": "fused kernel", "jax": "JAX path", "pennylane": "PennyLane", "tensorcircuit": "TensorCircuit-ng"}
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    alone = rows.query("gradient and num_layers == 5 and cores == 1 and lanes == 1")
    for library, label in names.items():
        mine = alone[alone["library"] == library]
        wide = mine[mine["batch"] == 256].sort_values("num_qubits")
        axes[0].plot(wide["num_qubits"], wide["milliseconds"], "o-", label=label)
        axes[1].plot(wide["num_qubits"], wide["compile_seconds"], "o-", label=label)
        four = mine[mine["num_qubits"] == 4].sort_values("batch")
        axes[2].plot(four["batch"], four["milliseconds"], "o-", label=label)
    axes[0].set(title="gradient, 5 layers, batch 256, one core", xlabel="qubits", ylabel="milliseconds", yscale="log")
    axes[1].set(title="compile time of the same", xlabel="qubits", ylabel="seconds", yscale="log")
    axes[2].set(title="gradient, 4 qubits, 5 layers", xlabel="batch", ylabel="milliseconds", xscale="log", yscale="log")
    if top is not None:
        n = np.arange(1, 11)
        axes[0].plot(n, operations_of(n, 5, True) * 256 / top / 1e6, "k--", label="multiply-add peak of the core")
    for axis in axes:
        axis.grid(alpha=0.3)
        if not any(len(line.get_xdata()) for line in axis.lines):
            axis.set(xscale="linear", yscale="linear")  # nothing to take the logarithm of
    axes[0].legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
