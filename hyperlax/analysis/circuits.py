"""Pictures of what circuits can do: gradients that vanish, states that are reached, entanglement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hyperlax.analysis.figures import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFERENCE: Any = {"color": "black", "linewidth": 1.2, "zorder": 5}


def plot_gradients(table: pd.DataFrame, decay: pd.DataFrame, path: Path, title: str) -> None:
    """Draws variances of gradients against qubits: one panel an observable, one line a depth, as a PNG.

    Args:
        table: of :func:`hyperlax.quantum.gradient_variance.study`.
        decay: its fits; the legends have their factors.
        path: of the PNG.
        title: stands above.
    """
    names = list(table["observable"].unique())
    factors = decay.set_index(["observable", "n_layers"])["factor"].to_dict()
    with _figure(len(names), path, title) as panels:
        for axes, name in zip(panels, names, strict=True):
            group = table[table["observable"] == name]
            for colour, depth, line in _lines(group):
                line = line[line["variance"] > 0]
                error = line["standard_error"].clip(upper=0.9 * line["variance"])  # a logarithm has no zero
                fitted = f", × {factors[name, depth]:.2f} a qubit" if (name, depth) in factors else ""
                label = f"{_layers(depth)}{fitted}"
                axes.errorbar(line["n_qubits"], line["variance"], error, marker="o", ms=4, color=colour, label=label)
            ideal = group.drop_duplicates("n_qubits")
            axes.plot(ideal["n_qubits"], ideal["two_design"], "--", label="2-designs on both sides", **_REFERENCE)
            axes.set(yscale="log", title=f"observable: {name}", xlabel="qubits")
            axes.legend(frameon=False, fontsize=7.5)
        panels[0].set_ylabel("variance of the first angle's gradient")


def plot_expressibility(table: pd.DataFrame, path: Path, title: str) -> None:
    """Draws divergence from Haar-random states and entanglement against qubits, one line a depth, as a PNG.

    Args:
        table: of :func:`hyperlax.quantum.expressibility.study`.
        path: of the PNG.
        title: stands above.
    """
    with _figure(2, path, title, sharey=False) as (left, right):
        for colour, depth, line in _lines(table):
            style: Any = {"marker": "o", "markersize": 4, "color": colour, "label": _layers(depth)}
            left.plot(line["n_qubits"], line["divergence"], **style)
            right.errorbar(line["n_qubits"], line["entanglement"], line["standard_error"], **style)
        ideal = table.drop_duplicates("n_qubits")
        floor, error = ideal["floor"], ideal["floor_std"].clip(upper=0.9 * ideal["floor"])
        left.plot(ideal["n_qubits"], floor, "--", **_REFERENCE)
        left.fill_between(ideal["n_qubits"], floor - error, floor + error, color="black", alpha=0.15, linewidth=0)
        right.plot(ideal["n_qubits"], ideal["haar_entanglement"], "--", label="Haar-random", **_REFERENCE)
        left.set(yscale="log", xlabel="qubits", ylabel="divergence (nats)", title="Expressibility: lower reaches more")
        right.set(ylim=(0, 1.02), xlabel="qubits", ylabel="Meyer-Wallach measure", title="Entangling capability")
        left.figure.legend(*right.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7.5)


def _layers(depth: Any) -> str:
    return f"{depth} layer{'s' * (depth != 1)}"


def _lines(table: pd.DataFrame) -> Iterator[tuple[Any, Any, pd.DataFrame]]:
    """Yields the rows of each depth with a colour, from dark to light as the depth grows."""
    import matplotlib

    groups = list(table.groupby("n_layers"))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(groups)))
    for colour, (depth, line) in zip(colours, groups, strict=True):
        yield colour, depth, line


@contextmanager
def _figure(panels: int, path: Path, title: str, sharey: bool = True) -> Iterator[list[Axes]]:
    """Gives panels side by side, and writes them when they are drawn."""
    from matplotlib.ticker import MaxNLocator

    with picture(path.with_suffix(""), title, (4.6 * panels + 0.4, 4), ("png",)) as figure:
        axes = list(figure.subplots(1, panels, sharey=sharey, squeeze=False)[0])
        yield axes
        for one in axes:
            one.xaxis.set_major_locator(MaxNLocator(integer=True))
