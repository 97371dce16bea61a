"""The page in a browser: pictures load, headings sort, hostile names run nothing."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import HOSTILE
from probe_pages import NAMES, make_page, make_report, parse

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.report import Cell, ImageGrid, report_html, summarise
from torch_bgdebias.probe.results.concepts import ConceptBackground, ConceptFit, ConceptTable
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.summary import classes_by_gap

SHARES = {"original": 0.9, "mixed_same": 0.9, "mixed_rand": 0.5}
PROBE = """
const images = [...document.images];
const table = document.querySelector("table.sortable");
const order = () => [...table.tBodies[0].rows].map((r) => r.cells[0].dataset.value);
const click = (column) => { table.querySelector(`th[data-column="${column}"] button`).click(); return order(); };
const seen = {
  pictures: images.length, loaded: images.filter((i) => i.complete && i.naturalWidth > 0).length,
  start: order(), gap_down: click(2), gap_up: click(2), name_up: click(0), name_down: click(0),
  sorted: [...table.querySelectorAll("th[data-column]")].map((h) => h.getAttribute("aria-sort")),
  fetched: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
};
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


def chromium() -> str:
    browser = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if browser is None:
        if os.environ.get("TORCH_BGDEBIAS_BROWSER") == "required":
            pytest.fail("TORCH_BGDEBIAS_BROWSER is required, and there is no Chromium")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return browser


def dom(folder: Path, page: str, *, width: int = 1200) -> str:
    """The page as a browser has it after its scripts have run."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync"
    done = subprocess.run(
        [
            chromium(),
            *flags.split(),
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900",
            "--virtual-time-budget=2000",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<html" in done.stdout, done.stderr[-500:]
    return done.stdout


def with_probe(page: str, script: str) -> str:
    return page.replace("</body>", f"<script>addEventListener('load', () => {{{script}}})</script></body>")


def seen_in(shown: str) -> Any:
    """What a probe left behind in the page."""
    match = re.search(r'data-seen="([^"]*)"', shown)
    assert match, "the page's script did not run"
    return json.loads(html.unescape(match[1]))


@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser_pictures_load_and_headings_sort(tmp_path: Path, width: int) -> None:
    seen = seen_in(dom(tmp_path, with_probe(make_page(), PROBE), width=width))
    gaps = {c.name: c.bg_gap.value for c in make_report().per_class}
    assert seen["pictures"] == seen["loaded"] == 2 * 3 + 1
    assert seen["start"] == sorted(NAMES, key=lambda n: -abs(gaps[n]))
    assert seen["gap_down"] == sorted(NAMES, key=lambda n: -gaps[n])
    assert seen["gap_up"] == sorted(NAMES, key=lambda n: gaps[n])
    assert seen["name_up"] == seen["name_down"][::-1]
    assert seen["name_up"][-1] == "desert & co"
    assert seen["sorted"] == ["descending"] + ["none"] * 8
    assert seen["fetched"] == []
    assert seen["overflow"] <= 0


MANY = """
const table = document.querySelector("table.sortable"), tools = document.querySelector(".tools");
const shown = () => [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null);
const rows = () => shown().map((row) => row.cells[0].dataset.value);
const says = () => tools.querySelector("[role=status]").textContent;
const [back, next] = tools.querySelectorAll("button"), search = tools.querySelector("input");
const seen = [[rows(), says(), back.disabled]];
next.click(); seen.push([rows(), says(), next.disabled]);
table.querySelector("th[data-column='0'] button").click(); seen.push([rows(), says()]);
search.value = "CLASS 03"; search.dispatchEvent(new Event("input")); seen.push([rows(), says()]);
search.value = "nowhere"; search.dispatchEvent(new Event("input")); seen.push([rows(), says()]);
search.value = ""; search.dispatchEvent(new Event("input"));
tools.querySelector("select").value = "0"; tools.querySelector("select").dispatchEvent(new Event("change"));
seen.push([rows(), says()]);
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


def test_many_classes_are_searched_and_turned_page_by_page(tmp_path: Path) -> None:
    names = [f"class {i:02d}" for i in range(40)]
    label = np.arange(400) % 40
    rng = np.random.default_rng(0)
    prediction = {v: np.where(rng.random(400) < p, label, (label + 1) % 40) for v, p in SHARES.items()}
    images = ImageResults(np.arange(400, dtype=np.uint64), label, prediction, {v: np.ones(400, "f4") for v in SHARES})
    report = summarise(images, model="m", class_names=names)
    shown = dom(tmp_path, with_probe(report_html([report]), MANY))
    first, second, by_name, matching, nothing, everything = seen_in(shown)
    worst = [row.name for row in classes_by_gap(report)]
    assert first == [worst[:25], "1 to 25 of 40", True]
    assert second == [worst[25:], "26 to 40 of 40", True]
    assert by_name == [names[:25], "1 to 25 of 40"]
    assert matching == [[name for name in names if "class 03" in name], "1 to 1 of 1"]
    assert nothing == [[], "none"]
    assert everything == [names, "1 to 40 of 40"]


def test_hostile_names_run_nothing(tmp_path: Path) -> None:
    """Eighteen class folders and every string of two reports: shown as they are, run as nothing."""
    reports = []
    for number in (0, 1):
        report = make_report(n=400, examples=2, score=True, seed=number)
        every = dict(enumerate(HOSTILE))
        report.class_names = HOSTILE
        for row in report.per_class:
            object.__setattr__(row, "name", HOSTILE[4 * number + row.label])
        report.model = HOSTILE[8 + number]
        report.images.scores = dict.fromkeys(HOSTILE, report.images.scores["pixel_ratio/grad_cam"])
        score = report.scores["pixel_ratio/grad_cam"]
        report.scores = dict.fromkeys(HOSTILE, score)
        report.settings = {
            **{name: name for name in HOSTILE},
            "confidence": 0.95,
            "list": HOSTILE,
            "dict": every,
        }
        report.counts = {**report.counts, **dict.fromkeys(HOSTILE, number)}
        report.versions = {name: name for name in HOSTILE}
        for example in report.examples:
            example.heatmaps = dict.fromkeys(HOSTILE[:3], example.heatmaps["grad_cam"])
        interval = Interval(0.5, 0.4, 0.6, 9)
        pairs = [
            ConceptBackground(c, k, interval, interval, interval, 0.2, 0.01, 0.01)
            for c in HOSTILE[:2]
            for k in HOSTILE[2:4]
        ]
        fits = [ConceptFit(name, interval, interval, {name: 0.5}) for name in HOSTILE]
        report.concepts = [ConceptTable(HOSTILE[3], HOSTILE[4], pairs, fits)]
        reports.append(report)
    cell = Cell(
        np.zeros((2, 2, 3), np.uint8),
        [(name, True) for name in HOSTILE],
        HOSTILE[7],
        [0] * len(HOSTILE),
    )
    grid = ImageGrid(HOSTILE[0], HOSTILE[:1], [(HOSTILE[1], [cell])], HOSTILE[4], HOSTILE)
    curves = {name: {name: [0.1, 0.9]} for name in HOSTILE}
    page = report_html(reports, title=HOSTILE[3], curves=curves, grids=[grid], settings={n: n for n in HOSTILE})
    watch = "<script>window.hacked = () => { document.documentElement.dataset.hacked = 'yes'; };</script>"
    shown = dom(tmp_path, page.replace("<head>", f"<head>{watch}"))
    assert "data-hacked" not in shown
    parsed = parse(page)
    assert parsed.scripts == 1
    assert shown.count("<script") == 2  # the page's own and the watch
    for tag in ("<iframe", "<base", "<svg onload", '<img src="x"'):
        assert tag not in shown, tag
    text = " ".join(parsed.text)
    for name in HOSTILE[:4]:
        assert name in text
    assert "{{ 7 * 7 }}" in text
    assert all(r.startswith("data:") or r.removeprefix("#") in parsed.ids for r in parsed.references)
