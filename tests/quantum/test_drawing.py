"""Circuits as text and as pictures: what stands where, and what is counted."""

from __future__ import annotations

import pytest

from hyperlax.errors import UserError
from hyperlax.quantum.circuit import Angle, Builder, data_reuploading, hardware_efficient
from hyperlax.quantum.drawing import angle_text, columns, count_gates, depth, draw_picture, draw_text


def example():
    """Every kind of gate and angle; the CNOT crosses a wire and its target is above its control."""
    circuit = Builder(3)
    circuit.rotate("y", 0, circuit.encode(0, circuit.parameter(1.0), circuit.parameter(0.0)))
    circuit.rotate("x", 1, 0.5)
    circuit.couple("cnot", 2, 0)
    circuit.rotate("z", 1, circuit.trainable())
    circuit.couple("cz", 0, 1)
    circuit.rotate("x", 2, circuit.encode(1))
    return circuit.build(["ZII", "XII", "IYZ"])


def test_text_has_a_line_a_qubit_and_gates_as_early_as_their_wires_are_free():
    assert draw_text(example()) == (
        "q0: ─RY(w0·x0+t1)─╭⊕────────╭●─┤ ZX\nq1: ─RX(0.5)──────┼──RZ(t2)─╰●─┤\nq2: ──────────────╰●─RX(x1)────┤"
    )


def test_a_column_that_a_line_crosses_is_taken():
    names = [[(gate.name, gate.qubits) for gate in column] for column in columns(example())]
    assert names == [
        [("y", (0,)), ("x", (1,))],
        [("cnot", (2, 0))],
        [("z", (1,)), ("x", (2,))],
        [("cz", (0, 1))],
    ]


def test_pairs_side_by_side_are_told_apart():
    circuit = Builder(4)
    circuit.entangle("cz", "pairs")
    assert draw_text(circuit.build(["ZZII"])) == "q0: ─╭●─┤\nq1: ─╰●─┤\nq2: ─╭●─┤\nq3: ─╰●─┤"


def test_long_circuits_go_on_below():
    circuit = hardware_efficient(2, 3, 2)
    blocks = draw_text(circuit, width=40).split("\n\n")
    assert len(blocks) > 2 and all(len(line) <= 40 for block in blocks for line in block.split("\n"))
    rows = [block.split("\n") for block in blocks]
    joined = "".join(row[0] for row in rows)
    whole = draw_text(circuit, width=1000).split("\n")[0]
    for mark in ("RX", "RY", "RZ", "╭●"):
        assert joined.count(mark) == whole.count(mark) == 3
    assert all(line.endswith("─") for block in rows[:-1] for line in block)
    assert [line[-4:] for line in rows[-1]] == ["─┤ Z"] * 2


def test_labels_are_as_wide_as_the_last_qubit():
    circuit = Builder(11)
    circuit.rotate("x", 10, 1.0)
    lines = draw_text(circuit.build(["Z" + "I" * 10])).split("\n")
    assert lines[0] == " q0: ───────┤ Z" and lines[10] == "q10: ─RX(1)─┤"


@pytest.mark.parametrize(
    ("angle", "text"),
    [
        (Angle(), "0"),
        (Angle(-0.25), "-0.25"),
        (Angle(bias=5), "t5"),
        (Angle(feature=2), "x2"),
        (Angle(scale=3, feature=0, bias=5), "w3·x0+t5"),
        (Angle(-1.5, 1, 0, 4), "w0·x4+t1-1.5"),
        (Angle(1.5, None, 0, 4), "w0·x4+1.5"),
    ],
)
def test_angles_are_symbols(angle, text):
    assert angle_text(angle) == text


def test_gates_are_counted_by_kind_and_along_the_longest_way():
    assert count_gates(example()) == {"RX": 2, "RY": 1, "RZ": 1, "CNOT": 1, "CZ": 1}
    assert depth(example()) == 3  # RY, CNOT, CZ
    circuit = data_reuploading(3, 2, 2)
    assert count_gates(circuit) == {"RY": 10, "RZ": 20, "CZ": 1}  # "odd_pairs" of two qubits are none
    assert depth(circuit) == 16


@pytest.mark.parametrize(("file_format", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_pictures_of_the_same_circuit_are_the_same(file_format, magic):
    first = draw_picture(example(), file_format, "title")
    assert first.startswith(magic) and draw_picture(example(), file_format, "title") == first


def test_a_picture_has_every_gate_once():
    picture = draw_picture(hardware_efficient(2, 12, 2), "svg", "a title").decode()
    labels = [line.strip()[5:-4] for line in picture.splitlines() if line.strip().startswith("<!-- ")]
    assert labels.count("a title") == 1 and labels.count("⟨Z⟩") == 2
    for gate in hardware_efficient(2, 12, 2).gates:
        if gate.angle is not None:
            assert labels.count(f"R{gate.name.upper()}({angle_text(gate.angle)})") == 1
    assert labels.count("q0") == labels.count("q1") > 1  # several rows


def test_a_very_long_circuit_still_fits_a_picture():
    assert draw_picture(hardware_efficient(4, 120, 4), "png").startswith(b"\x89PNG")


def test_an_unknown_format_is_refused():
    with pytest.raises(UserError, match="unknown format of a picture 'gif': accepted: pdf, png, svg"):
        draw_picture(example(), "gif")
