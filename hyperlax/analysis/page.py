"""A page of HTML that needs no network and no other file; a few lines of script sort and filter its tables."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hyperlax.analysis.tables import is_numeric

Section = tuple[str, str]  # a heading, and the HTML below it

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; border: 1px solid #8884; }
.scroll { overflow: auto; max-height: 32rem; border: 1px solid #8884; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8882; }
.data thead th { position: sticky; top: 0; background: Canvas; }
th button { all: unset; cursor: pointer; font-weight: bold; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.text, th.text, .facts th { text-align: left; } .facts td { text-align: left; white-space: normal; }
nav ul { columns: 2; padding-left: 1.2rem; }
input { font: inherit; margin: .3rem .6rem; padding: .2rem .5rem; width: 18rem; }
pre { overflow: auto; white-space: pre-wrap; background: #8881; padding: .7rem; font-size: 12.5px; }
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
      if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1;  // what has no value comes last, either way
      const by = isNaN(p) ? x.localeCompare(y, undefined, {numeric: true}) : p - q;
      return up ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  }));
  const filter = table.closest("section").querySelector("input");
  const count = table.closest("section").querySelector("output");
  filter?.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
    count.textContent = [...body.rows].filter(row => !row.hidden).length + " of " + body.rows.length + " rows";
  });
}
"""

# Nothing is fetched, whatever a name in the results may contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Returns a whole page: a heading, contents and sections."""
    contents = "".join(f'<li><a href="#s{n}">{html.escape(name)}</a></li>' for n, (name, _) in enumerate(sections))
    told = "".join(
        f'<section aria-labelledby="s{n}"><h2 id="s{n}">{html.escape(name)}</h2>{content}</section>\n'
        for n, (name, content) in enumerate(sections)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>\n"
        f"<nav aria-label=Contents><ul>{contents}</ul></nav>\n<main>{told}</main>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def facts(facts: Mapping[str, Any]) -> str:
    """Returns names and values, one pair a line."""
    rows = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(frame: pd.DataFrame) -> str:
    """Returns a table whose columns sort when their heads are pressed, and a field that filters its rows."""
    numeric = [is_numeric(frame[name]) for name in frame]
    heads = "".join(
        f"<th scope=col{'' if number else ' class=text'}><button>{html.escape(name.replace('_', ' '))}</button></th>"
        for name, number in zip(map(str, frame), numeric, strict=True)
    )
    rows = []
    for values in frame.itertuples(index=False):
        cells = [_cell(value, number) for value, number in zip(values, numeric, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    count = f"{len(frame)} of {len(frame)} rows"
    return (
        f"<label>Filter rows <input type=search></label><output aria-live=polite>{count}</output>"
        '<div class="scroll" tabindex=0 role=region aria-label="Table, scrolls sideways">'
        f'<table class="data"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _cell(value: Any, numeric: bool) -> str:
    if not numeric:
        return f"<td class=text>{html.escape(str(value))}</td>"
    number = float(value)
    if math.isnan(number):
        return "<td data-value=''>–</td>"
    if math.isinf(number):
        return f"<td data-value={'-' * (number < 0)}Infinity>{'−' * (number < 0)}∞</td>"
    return f"<td data-value={number:.9g}>{shown(number)}</td>"


def shown(number: float | None) -> str:
    """Returns a number as a reader wants it: five digits, a dash for none."""
    if number is None:
        return "–"
    return f"{number:,.5g}" if abs(number) < 1e5 else f"{number:,.0f}"
