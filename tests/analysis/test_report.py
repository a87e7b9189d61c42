"""The report: one file that tells everything, fetches nothing, and sorts and filters in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from hyperlax.analysis.collection import collect, entry_of
from hyperlax.analysis.comparison import tables
from hyperlax.analysis.report import draw_report, write_report, write_run_report
from hyperlax.cli import main
from hyperlax.errors import UserError

PROGRAMS = [{"program": 0, "tasks": 24, "lanes": 4, "predicted_seconds": 12.5, "run_seconds": 13.25, "shape": "8 × 4"}]
WINNER = {
    "sample_id": 3, "selected_final_return": 77.5, "fresh_seeds_final_return": 61.25,
    "fresh_seeds_standard_error": 2.5, "fresh_seeds": 4, "fresh_seeds_diverged": 1,
}  # fmt: skip


def configurations(count):
    rng = np.random.default_rng(0)
    return [
        {"lr": float(10 ** rng.uniform(-4, -1)), "layers": (2 ** (3 + i % 5),) * 2, "<b>": i % 2 == 0}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def search(write_run, tmp_path_factory):
    request = {"objectives": ["final_return"], "directions": ["maximize"], "sampler": "tpe", "pruner": "asha"}
    return write_run(
        tmp_path_factory.mktemp("runs") / "run_001", configurations(12), lambda v: 1000 * v["lr"], seeds=[0, 1],
        ends={2: ("DIVERGED", 0), 5: ("PRUNED", 1)}, study="mine", request=request, num_trials=12, programs=PROGRAMS,
        winner=WINNER, space={"lr": "log-uniform"}, predicted_seconds=20.0, seconds=31.0,
    )  # fmt: skip


def has_no_reference(page):
    return not re.search(r'(src|href)="?(?!data:|#|")|url\(|@import|https?://', page)


def test_a_run_has_everything_in_one_file(search):
    report = write_run_report(search)
    page = report.read_text()
    assert report == search.path / "report.html" and has_no_reference(page)
    assert page.count("data:image/png") == 4 + 7 == len(list((search.path / "plots").glob("*.png")))
    assert not list((search.path / "plots").glob("*.pdf"))
    assert "hyperlax &lt;sweep&gt; &amp; more" in page and "<button>&lt;b&gt;</button>" in page and "jax 1" in page
    facts = dict(re.findall(r"<th scope=row>(.*?)</th><td>(.*?)</td>", page))
    assert facts["study"] == "mine" and facts["sampler"] == "tpe" and facts["pruner"] == "asha"
    assert (
        facts["objectives"] == "final return (maximize)"
        and facts["trials here"] == "10 COMPLETED, 1 PRUNED, 1 DIVERGED"
    )
    assert facts["final return that selected it"] == "77.5"
    assert facts["final return on 4 fresh seeds"] == "61.25 ± 2.5 (standard error)"
    assert facts["seconds predicted"] == "20" and facts["seconds taken, of all"] == "31"
    assert "<td data-value=12.5>12.5</td><td data-value=13.25>13.25</td>" in page


def test_one_run_and_several_by_command(search, write_run, tmp_path, capsys):
    command = ["plot-benchmark", "--results-dir-to-plot", str(search.path), "--output", str(tmp_path / "one")]
    assert main(command) == 0
    assert "timeline.png" in capsys.readouterr().out
    names = {file.stem for file in (tmp_path / "one").glob("*.svg")}
    assert {"best_so_far", "interactions", "timeline", "learning_curves"} <= names
    assert not {"performance_profiles", "expected_best", "improvement"} & names  # there is nothing to compare
    write_run(tmp_path / "other", configurations(8), lambda v: v["lr"], algorithm="pqn")
    pictures, _, report = draw_report(collect([search.path, tmp_path / "other"]), tmp_path / "both", "both")
    page = report.read_text()
    runs = sorted(f.relative_to(tmp_path / "both" / "runs").as_posix() for f in pictures if "runs" in f.parts)
    assert runs == [
        f"gymnax.cartpole_{family}/{name}.png"
        for family in ("ppo_mlp_search", "pqn_mlp")
        for name in ("importance", "timeline")
    ]
    assert page.count("data:image/png") == 6 + 4 and has_no_reference(page)
    assert "ppo_mlp, search on gymnax.cartpole: The search" in page


def test_the_published_size_stays_small(write_run, tmp_path):
    rng = np.random.default_rng(0)
    values = [{f"rate_{k}": float(10 ** rng.uniform(-5, -2)) for k in range(20)} for _ in range(64)]
    run = write_run(
        tmp_path / "run", values, lambda v: 100 * np.log10(v["rate_0"]), seeds=range(4), evaluations=40, lanes=256
    )
    assert len(run.evaluations) == 64 * 4 * 40
    assert write_run_report(run).stat().st_size < 3_000_000


def test_pictures_for_which_there_is_no_room_are_named(search, tmp_path, monkeypatch):
    monkeypatch.setattr("hyperlax.analysis.report.MOST_BYTES", 150_000)
    (tmp_path / "plots").mkdir()
    pictures = {name: tmp_path / "plots" / f"{name}.png" for name in ("first", "second")}
    for file in pictures.values():
        file.write_bytes(b"\x89PNG" + bytes(100_000))
    entries = [entry_of(search)]
    page = write_report(entries, pictures, tables(entries), tmp_path / "report.html", "t").read_text()
    assert page.count("data:image/png") == 1 and "<li>plots/second.png</li>" in page


def test_a_run_without_returns_is_refused(write_run, tmp_path):
    run = write_run(tmp_path, configurations(2), lambda v: 1.0, ends={0: ("DIVERGED", 0), 1: ("FAILED", 0)})
    with pytest.raises(UserError, match="no sample of this run has been evaluated yet"):
        write_run_report(run)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([{"lr": 0.1}], {"seeds": [0], "evaluations": 1}),
        ([{"lr": 0.1}], {"seeds": [0], "ends": {0: (None, 1)}}),  # killed
        ([{"kind": "a"}, {"kind": "b"}, {"kind": "a"}], {"ends": {i: ("DIVERGED", 1) for i in range(3)}}),
    ],
)
def test_the_least_that_a_run_can_have(write_run, tmp_path, values, options):
    run = write_run(tmp_path, values, lambda v: 8.0, **options)
    page = write_run_report(run).read_text()
    drawn = {file.stem for file in (tmp_path / "plots").glob("*.png")}
    assert {"best_found_returns", "learning_curves"} <= drawn and "hyperparameters" not in drawn
    assert page.count("data:image/png") == len(drawn) and page.count("<tr><td") == len(values)


PROBE = """<script>
const section = [...document.querySelectorAll("section")].find(s => s.firstElementChild.innerText === "Configurations");
const table = section.querySelector("table.data"), heads = [...table.tHead.rows[0].cells], found = {};
const index = name => heads.findIndex(h => h.textContent === name);
const shown = name => [...table.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[index(name)].textContent);
const press = name => { heads[index(name)].querySelector("button").click(); return shown(name); };
const type = words => { const search = section.querySelector("input"); search.value = words;
  search.dispatchEvent(new Event("input")); return shown("sample id"); };
found.ids = press("sample id").map(Number); found.up = press("lr").map(Number);
found.sorted = heads[index("lr")].getAttribute("aria-sort"); found.down = press("lr").map(Number);
found.layers = press("layers"); found.returns = press("final return"); found.returnsDown = press("final return");
found.times = press("time to target");
found.filtered = type("DIVER true"); found.count = section.querySelector("output").textContent;
found.all = type("").length; found.align = getComputedStyle(table.tBodies[0].rows[0].cells[index("lr")]).textAlign;
found.fetched = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
found.pictures = [...document.images].map(image => image.naturalWidth);
const outside = new Image(); let refused = 0;
document.addEventListener("securitypolicyviolation", () => {
  found.refused = ++refused; document.title = JSON.stringify(found); });
outside.src = "http://localhost:9/x.png";
document.title = JSON.stringify(found);
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_the_report_sorts_and_filters_in_a_browser(search, tmp_path):
    page = write_run_report(search).read_text()
    probed = tmp_path / "report.html"
    probed.write_text(page.replace("</body>", PROBE))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    rates = [float(f"{values['lr']:.5g}") for values in configurations(12)]
    assert found["ids"] == list(range(12))
    assert found["up"] == sorted(rates) and found["down"] == sorted(rates, reverse=True)
    assert found["sorted"] == "ascending" and found["align"] == "right"
    sizes = [int(re.search(r"\d+", text)[0]) for text in found["layers"]]
    assert sizes == sorted(sizes) and sizes[0] == 8 and sizes[-1] == 128  # not as text, where 128 comes before 16
    assert found["returns"][-1] == found["returnsDown"][-1] == "–"  # without a value: last, either way
    finite = [float(text.replace(",", "")) for text in found["returns"][:-1]]
    assert finite == sorted(finite)
    assert found["times"][-1] == "∞"
    assert found["filtered"] == ["2"] and found["count"] == "1 of 12 rows" and found["all"] == 12
    assert found["fetched"] == [] and found["refused"] == 1
    assert len(found["pictures"]) == 11 and min(found["pictures"]) > 500
