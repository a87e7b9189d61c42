"""Circuits drawn as text and as pictures, and counted.

Angles are symbols: ``RY(w3·x0+t5)`` turns by parameter 3 times input 0, plus parameter 5.
"""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

from hyperlax.errors import unknown
from hyperlax.quantum.circuit import Angle, Circuit, Gate

FORMATS = ("png", "pdf", "svg")
_INCH_A_LETTER, _HEIGHT, _ROW_WIDTH, _FONT = 0.078, 0.42, 12.0, 8.0  # of the picture: inches, inches, inches, points
_MOST_PIXELS = 60_000  # of a side; matplotlib draws fewer than 2**16


def columns(circuit: Circuit) -> list[list[Gate]]:
    """Returns the gates by column, each in the earliest where the wires that it stands on or crosses are free."""
    taken = [0] * circuit.num_qubits
    packed: list[list[Gate]] = []
    for gate in circuit.gates:
        crossed = range(min(gate.qubits), max(gate.qubits) + 1)
        at = max(taken[qubit] for qubit in crossed)
        packed += [[]] if at == len(packed) else []
        packed[at].append(gate)
        for qubit in crossed:
            taken[qubit] = at + 1
    return packed


def depth(circuit: Circuit) -> int:
    """Returns the number of gates, one after the other, on the longest way through the circuit."""
    reached = [0] * circuit.num_qubits
    for gate in circuit.gates:
        latest = 1 + max(reached[qubit] for qubit in gate.qubits)
        for qubit in gate.qubits:
            reached[qubit] = latest
    return max(reached)


def count_gates(circuit: Circuit) -> dict[str, int]:
    """Returns how many gates there are of each kind, by name: ``RX`` … ``CNOT``, ``CZ``; none that do not occur."""
    counted = Counter(_kind(gate) for gate in circuit.gates)
    return {kind: counted[kind] for kind in sorted(counted, key=lambda kind: (kind[0] != "R", kind))}


def angle_text(angle: Angle) -> str:
    """Returns an angle in symbols: ``w3·x0+t5``."""
    terms = []
    if angle.feature is not None:
        terms.append(f"x{angle.feature}" if angle.scale is None else f"w{angle.scale}·x{angle.feature}")
    if angle.bias is not None:
        terms.append(f"t{angle.bias}")
    if angle.constant or not terms:
        terms.append(f"{angle.constant:.4g}")
    return "+".join(terms).replace("+-", "-")


def draw_text(circuit: Circuit, width: int = 120) -> str:
    """Returns the circuit as text: one line a qubit, gates in columns, the letters measured alone at the end.

    Args:
        circuit: to draw.
        width: characters of a line; longer circuits go on below. A single column may be wider.
    """
    qubits = range(circuit.num_qubits)
    label = len(f"q{circuit.num_qubits - 1}: ")
    blocks: list[list[list[str]]] = [[]]
    used = label
    for column in columns(circuit):
        cells = _cells(column, circuit.num_qubits)
        size = max(map(len, cells)) + 1
        if blocks[-1] and used + size > width - len("─┤ ZZ"):
            blocks.append([])
            used = label
        blocks[-1].append([f"─{cell:─<{size - 1}}" for cell in cells])
        used += size
    ends = [f"─┤ {_measured_alone(circuit, qubit)}".rstrip() for qubit in qubits]
    lines = []
    for block in blocks:
        tail = ends if block is blocks[-1] else ["─"] * circuit.num_qubits
        rows = [f"{f'q{qubit}: ':>{label}}{''.join(c[qubit] for c in block)}{tail[qubit]}" for qubit in qubits]
        lines.append("\n".join(rows))
    return "\n\n".join(lines)


def draw_picture(circuit: Circuit, file_format: str, title: str = "") -> bytes:
    """Returns the circuit as a picture, drawn by matplotlib, long circuits in several rows.

    Args:
        circuit: to draw.
        file_format: ``png``, ``pdf`` or ``svg``.
        title: a line above.

    Raises:
        UserError: the format is not known.
    """
    if file_format not in FORMATS:
        raise unknown("format of a picture", file_format, FORMATS)
    import matplotlib

    # Made without pyplot, so an embedding program's own backend stays as it is.
    from matplotlib.figure import Figure

    rows = _rows_of_picture(circuit)
    row_height = (circuit.num_qubits + 0.6) * _HEIGHT
    height = len(rows) * row_height + (0.4 if title else 0.1)
    width = 1.2 + max(sum(size for _, size in row) for row in rows)
    width = max(width, len(title) * _INCH_A_LETTER)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    if title:
        axes.text(0.1, height - 0.2, title, fontsize=_FONT + 1, va="center")
    top = height - (0.4 if title else 0.1)
    for number, row in enumerate(rows):
        _draw_row(axes, circuit, row, top - number * row_height, is_last=number == len(rows) - 1)
    content = io.BytesIO()
    # Without a date and random names, so that the same circuit is the same file.
    metadata: Any = {"png": None, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[file_format]
    dpi = min(160.0, _MOST_PIXELS / max(width, height))
    with matplotlib.rc_context({"svg.hashsalt": "hyperlax"}):
        figure.savefig(content, format=file_format, dpi=dpi, metadata=metadata)
    return content.getvalue()


def _kind(gate: Gate) -> str:
    return gate.name.upper() if gate.angle is None else f"R{gate.name.upper()}"


def _text(gate: Gate) -> str:
    assert gate.angle is not None
    return f"{_kind(gate)}({angle_text(gate.angle)})"


def _measured_alone(circuit: Circuit, qubit: int) -> str:
    """Returns the letters of the observables that are of this qubit only."""
    words = (word for word in circuit.observables if len(word) - word.count("I") == 1)
    return "".join(dict.fromkeys(word[qubit] for word in words if word[qubit] != "I"))


def _cells(column: list[Gate], num_qubits: int) -> list[str]:
    """Returns what stands on each wire in one column."""
    cells = [""] * num_qubits
    for gate in column:
        if gate.angle is not None:
            cells[gate.qubits[0]] = _text(gate)
            continue
        control, target = gate.qubits
        first, last = sorted(gate.qubits)
        cells[first + 1 : last] = ["┼"] * (last - first - 1)
        cells[control] = "●"
        cells[target] = "⊕" if gate.name == "cnot" else "●"
        cells[first], cells[last] = f"╭{cells[first]}", f"╰{cells[last]}"
    return cells


def _rows_of_picture(circuit: Circuit) -> list[list[tuple[list[Gate], float]]]:
    """Returns the columns with their widths in inches, in rows."""
    rows: list[list[tuple[list[Gate], float]]] = [[]]
    used = 0.0
    for column in columns(circuit):
        letters = max([len(_text(gate)) for gate in column if gate.angle is not None], default=0)
        size = 0.15 + max(0.2, 0.1 + letters * _INCH_A_LETTER)
        if rows[-1] and used + size > _ROW_WIDTH:
            rows.append([])
            used = 0.0
        rows[-1].append((column, size))
        used += size
    return rows


def _draw_row(axes: Any, circuit: Circuit, row: list[tuple[list[Gate], float]], top: float, is_last: bool) -> None:
    """Draws the wires and the gates of one row; ``top`` is its upper edge."""
    heights = [top - (qubit + 0.6) * _HEIGHT for qubit in range(circuit.num_qubits)]
    end = 0.5 + sum(size for _, size in row)
    for qubit, y in enumerate(heights):
        axes.text(0.1, y, f"q{qubit}", fontsize=_FONT, va="center")
        axes.plot([0.4, end + 0.1], [y, y], color="black", linewidth=0.8, zorder=1)
        letters = _measured_alone(circuit, qubit)
        if is_last and letters:
            axes.text(end + 0.15, y, f"⟨{letters}⟩", fontsize=_FONT, va="center")
    x = 0.5
    for column, size in row:
        for gate in column:
            _draw_gate(axes, gate, x + size / 2, heights)
        x += size


def _draw_gate(axes: Any, gate: Gate, x: float, heights: list[float]) -> None:
    first, last = heights[gate.qubits[0]], heights[gate.qubits[-1]]
    if gate.angle is not None:
        text = _text(gate)
        # Inputs and trained angles are told apart in black and white too: what has an input is shaded.
        shade = "#d6e6f2" if gate.angle.feature is not None else "white"
        box = {"boxstyle": "square,pad=0.3", "facecolor": shade, "edgecolor": "black", "linewidth": 0.8}
        axes.text(x, first, text, fontsize=_FONT - 1, ha="center", va="center", bbox=box, zorder=3)
        return
    axes.plot([x, x], [first, last], color="black", linewidth=0.8, zorder=2)
    axes.plot([x], [first], "o", color="black", markersize=4, zorder=3)
    if gate.name == "cnot":
        axes.plot([x], [last], "o", markerfacecolor="white", markeredgecolor="black", markersize=9, zorder=3)
        axes.plot([x], [last], "+", color="black", markersize=9, markeredgewidth=0.8, zorder=4)
    else:
        axes.plot([x], [last], "o", color="black", markersize=4, zorder=3)
