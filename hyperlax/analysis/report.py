"""One HTML file that tells a run, a search or a benchmark: tables that sort and filter, pictures, how to repeat it.

It needs no network and no other file: pictures stand in it as data, and a few lines of script sort the tables.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hyperlax.analysis.collection import Entry
from hyperlax.analysis.comparison import aggregates, improvements
from hyperlax.errors import UserError
from hyperlax.results.storage import write_atomic

MOST_ROWS = 2000  # of a table

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; border: 1px solid #8884; }
.scroll { overflow: auto; max-height: 32rem; border: 1px solid #8884; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8882; }
th { position: sticky; top: 0; background: Canvas; cursor: pointer; user-select: none; }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
td.text, th.text { text-align: left; }
input { font: inherit; margin: .3rem 0; padding: .2rem .5rem; width: 18rem; }
pre { overflow: auto; background: #8881; padding: .7rem; font-size: 12.5px; }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1;
      const by = isNaN(p) ? x.localeCompare(y) : p - q;
      return up ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  }));
  const filter = table.closest("section").querySelector("input");
  filter?.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}
"""


def write_report(entries: Sequence[Entry], pictures: Mapping[str, Path], path: Path, title: str) -> Path:
    """Writes the report of some results.

    Args:
        entries: what is told.
        pictures: PNG files by title.
        path: of the HTML file.
        title: its heading.

    Raises:
        UserError: the file cannot be written.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(_subtitle(entries))}</p>"]
    if len(entries) > 1:
        parts.append(_section("Families", _table(aggregates(entries)), filtered=True))
        better = improvements(entries)
        if len(better):
            parts.append(_section("How likely one family's configuration beats another's", _table(better), True))
    parts += [_section(name, _picture(file, name)) for name, file in pictures.items()]
    for entry in entries:
        columns = [*_RESULTS, *entry.hyperparameters]
        shown = entry.summary[[name for name in columns if name in entry.summary]].head(MOST_ROWS)
        parts.append(_section(f"{entry.family} on {entry.environment}: configurations", _table(shown), True))
    for entry in entries:
        if entry.run is not None:
            parts.append(_section(f"{entry.family} on {entry.environment}: how it was made", _made(entry)))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body>\n{''.join(parts)}<script>{_SCRIPT}</script></body></html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page.encode())
    except OSError as error:
        raise UserError(f"'{path}': cannot write the report there: {error.strerror}") from None
    return path


_RESULTS = (
    "sample_id", "status", "final_return", "final_return_std", "peak_return", "peak_timestep", "auc_at_budget",
    "stability_score", "time_to_target", "seeds", "num_params", "env_steps", "wall_seconds",
)  # fmt: skip


def _subtitle(entries: Sequence[Entry]) -> str:
    count = sum(len(entry.summary) for entry in entries)
    names = sorted({entry.environment for entry in entries})
    return f"{count} configurations of {len({e.family for e in entries})} families on {', '.join(names)}"


def _section(title: str, content: str, filtered: bool = False) -> str:
    search = '<input type="search" placeholder="filter rows">' if filtered else ""
    return f"<section><h2>{html.escape(title)}</h2>{search}{content}</section>\n"


def _table(frame: pd.DataFrame) -> str:
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool for name in frame}
    heads = "".join(
        f"<th{'' if numeric[name] else ' class=text'}>{html.escape(str(name).replace('_', ' '))}</th>" for name in frame
    )
    rows = []
    for values in frame.itertuples(index=False):
        cells = [_cell(value, numeric[name]) for name, value in zip(frame, values, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table class="data"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: Any, numeric: bool) -> str:
    if not numeric:
        return f"<td class=text>{html.escape(str(value))}</td>"
    number = float(value)
    if math.isnan(number):
        return "<td data-value=''>–</td>"
    shown = f"{number:,.5g}" if abs(number) < 1e5 else f"{number:,.0f}"
    return f"<td data-value={number!r}>{shown}</td>"


def _picture(file: Path, title: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></figure>'


def _made(entry: Entry) -> str:
    """Returns what a reader needs to repeat a run."""
    assert entry.run is not None
    info = entry.run.info
    names = ("recipe", "environment", "backend", "budget_steps", "num_seeds", "num_evaluations", "num_eval_episodes")
    lines = [f"{name}: {info[name]}" for name in (*names, "seed", "state", "seconds", "devices") if name in info]
    versions = ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())
    rest = {name: info[name] for name in ("overrides", "space", "winner") if info.get(name)}
    text = "\n".join([*lines, f"versions: {versions}", json.dumps(rest, indent=1, ensure_ascii=False)])
    command = f"<pre>{html.escape(str(info['command']))}</pre>" if info.get("command") else ""
    return f"{command}<pre>{html.escape(text)}</pre>"
