"""The lineage of populations: who took up whose state, generation by generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LINEAGE = "lineage.csv"
LINEAGE_KEY = ("population", "generation", "member")
#: Its columns, before those of the hyperparameters that change.
LINEAGE_COLUMNS = ("population", "generation", "grid_step", "member", "parent", "return")


def ancestry(rows: Iterable[Mapping[str, Any]], member: int) -> list[Mapping[str, Any]]:
    """Returns the rows of the line of a member's state, from the first generation to the last.

    Args:
        rows: of the lineage, in any order.
        member: the last of the line.
    """
    generations: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        generations.setdefault(int(row["generation"]), {})[int(row["member"])] = row
    line = []
    for generation in sorted(generations, reverse=True):
        if member in generations[generation]:
            row = generations[generation][member]
            line.append(row)
            member = int(row["parent"])
    return line[::-1]
