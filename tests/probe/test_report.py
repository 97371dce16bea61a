"""The HTML report: what it says, that it needs nothing else, and that a browser can use it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_bgdebias.probe import compare_models, report_figures, report_to_html
from torch_bgdebias.probe.page import charts, tables, verdict
from torch_bgdebias.probe.passes.heatmaps import NEUTRAL, heat_picture, packed_heatmap, packed_mask, unpacked_heatmap
from torch_bgdebias.probe.report import Cell, ImageGrid, report_html
from torch_bgdebias.probe.results.aggregate import summarise
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, Estimate, Example, ImageResults

NAMES = ["airport", "bedroom", "<script>alert('x')</script>", "desert & co"]
NAN = Estimate(math.nan, math.nan, math.nan, 0)


def make_report(
    model: str = "baseline",
    *,
    same: float = 0.9,
    rand: float = 0.4,
    n: int = 400,
    seed: int = 0,
    first_id: int = 0,
    examples: int = 0,
    score: bool = False,
) -> BackgroundBiasReport:
    """A report of a model that is right with the given chances."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % len(NAMES)
    chances = {"original": same, "mixed_same": same, "mixed_rand": rand, "only_bg_t": same - rand}
    prediction = {v: np.where(rng.random(n) < p, label, (label + 1) % len(NAMES)) for v, p in chances.items()}
    confidence = {v: rng.random(n).astype(np.float32) for v in chances}
    images = ImageResults(np.arange(first_id, first_id + n, dtype=np.uint64), label, prediction, confidence)
    images.background_label["mixed_rand"] = rng.integers(0, len(NAMES), n)
    if score:
        images.scores["pixel_ratio/grad_cam"] = rng.random(n).astype(np.float32)
        images.scores["pixel_ratio/grad_cam"][:3] = np.nan
    picture = np.full((8, 10, 3), 200, np.uint8)
    shown = {"original": picture, "mixed_rand": picture}
    heat, mask = np.full((8, 10), 255, np.uint8), np.zeros((8, 10), np.uint8)
    heat[:, :5] = 1
    mask[2:6, 2:6] = 255
    said = ({"mixed_rand": 3}, {"original": 0.9, "mixed_rand": 0.8})
    kept = [
        Example(i, i % 4, shown, {"original": i % 4, **said[0]}, said[1], {"grad_cam": heat}, mask)
        for i in range(examples)
    ]
    counts = {"images": n, "classes": 4, "backgrounds": 40}
    return summarise(
        images,
        model=model,
        class_names=NAMES,
        n_resamples=200,
        counts=counts,
        settings={"layer": "head"},
        examples=kept,
    )


def make_page(**options: object) -> str:
    before = make_report(examples=2, score=True)
    after = make_report("background swap", same=0.95, rand=0.97, seed=1, score=True)
    picture = np.zeros((6, 6, 3), np.uint8)
    grid = ImageGrid("Pictures", ["own", "other"], [("cat", [Cell(picture, [("cat", True), ("dog", False)], "a cat")])])
    panels = {
        "Accuracy": {"baseline": [0.1, 0.5], "background swap": [0.2, 0.9]},
        "Training loss": {"baseline": [2, 1]},
    }
    return report_html([before, after], curves=panels, grids=[grid], **options)


class Wellformed(HTMLParser):
    """Fails on tags that are closed in the wrong order; collects references and text."""

    VOID = frozenset({"meta", "link", "img", "br", "rect", "line", "circle", "polyline", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID and tag != "circle" and (not self.open or self.open[-1] != tag):
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Wellformed:
    parser = Wellformed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_page_is_wellformed_and_refers_to_nothing_outside() -> None:
    page = make_page()
    parsed = parse(page)
    assert parsed.references
    assert all(r.startswith(("data:", "#")) for r in parsed.references)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {r[1:] for r in parsed.references if r.startswith("#")} <= set(parsed.ids)
    assert not re.search(r"https?://|url\(|@import", page)


def test_names_from_data_never_become_markup() -> None:
    hostile = "<img src=x onerror=alert(1)>{{css}}'\""
    report = replace(make_report(), model=hostile, settings={"<b>key</b>": hostile})
    grid = ImageGrid(hostile, [hostile], [(hostile, [Cell(np.zeros((2, 2, 3), np.uint8), [(hostile, True)], hostile)])])
    page = report_html([report], title=hostile, curves={hostile: {hostile: [0.1]}}, grids=[grid])
    parsed = parse(page)
    assert parsed.scripts == 1
    assert "<img src=x" not in page
    assert "<b>key" not in page
    assert "{{css}}" in page  # a slot's content is not searched for slots


def test_headline_says_before_and_after() -> None:
    text = " ".join(parse(make_page()).text)
    report = make_report()
    assert charts.points(report.bg_gap.value) in text
    assert "it reads part of its answer off the background" in text
    assert "hardly matters any more" in text


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (Estimate(0.3, 0.2, 0.4, 100), "loses <b>30.0 points</b>"),
        (Estimate(0.01, -0.02, 0.04, 100), "no dependence on the background can be shown"),
        (Estimate(-0.3, -0.4, -0.2, 100), "more accurate on random backgrounds"),
        (Estimate(0.3, math.nan, math.nan, 1), "too few to judge"),
        (NAN, "is not known"),
        (None, "is not known"),
    ],
)
def test_verdict_on_one_model(gap: Estimate | None, expected: str) -> None:
    (sentence,) = verdict.verdict([replace(make_report(), bg_gap=gap)], [])
    assert expected in sentence


@pytest.mark.parametrize(
    ("same", "rand", "n", "expected"),
    [
        (0.95, 0.95, 2000, "hardly matters any more"),
        (0.9, 0.75, 2000, "of the loss is gone"),
        (0.9, 0.42, 200, "does not show that it helped"),
        (0.95, 0.1, 2000, "the loss is larger"),
    ],
)
def test_verdict_on_two_models(same: float, rand: float, n: int, expected: str) -> None:
    reports = [make_report(n=n), make_report("other", same=same, rand=rand, n=n, seed=3)]
    assert expected in verdict.verdict(reports, compare_models(reports))[1]


def test_no_gap_at_chance_is_no_success() -> None:
    reports = [make_report(), make_report("other", same=0.25, rand=0.25, seed=3)]
    assert "not more accurate" in verdict.verdict(reports, compare_models(reports))[1]


def test_models_on_other_images_are_not_compared_in_pairs() -> None:
    reports = [make_report(), make_report("other", first_id=10_000)]
    assert compare_models(reports) == [None]
    assert "not measured on the same images" in report_html(reports)


def test_after_is_the_most_accurate_on_random_backgrounds() -> None:
    reports = [make_report(rand=0.9), make_report(rand=0.5), make_report(rand=0.8), make_report(rand=0.6)]
    assert verdict.pick_after(reports) == 2
    assert verdict.pick_after(reports[:1]) is None


def test_every_class_has_a_row_that_sorts_by_its_value() -> None:
    page = tables.classes([make_report()])
    rows = re.findall(r"<tbody>(.*)</tbody>", page)[0].split("</tr>")[:-1]
    assert len(rows) == len(NAMES)
    values = re.findall(r"data-value='([^']*)'", rows[0])
    report = make_report()
    assert values[0] == "airport"
    assert float(values[1]) == report.per_class[0].n
    assert float(values[-1]) == pytest.approx(report.per_class[0].bg_gap.value, abs=1e-6)


def test_a_report_without_variants_still_makes_a_page() -> None:
    images = ImageResults(
        np.arange(2, dtype=np.uint64), np.array([0, 1]), {"original": np.array([0, 0])}, {"original": np.ones(2, "f4")}
    )
    page = report_html([summarise(images, model="m", class_names=["a", "b"], n_resamples=10)])
    assert "is not known" in page
    parse(page)


def test_lines_of_a_grid_have_their_models_colour() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    cell = Cell(picture, [("cat", True), ("dog", False)], models=[0, 1])
    page = report_html([make_report(n=8)], grids=[ImageGrid("g", ["c"], [("r", [cell, None])], models=["one", "two"])])
    assert "<span class='right'><i class='dot k0'></i>cat</span>" in page
    assert "<span class='wrong'><i class='dot k1'></i>dog</span>" in page
    assert "<i class='k1'></i>two" in page
    with pytest.raises(ValueError, match=r"models: expected one for each of 1 lines, got 2"):
        Cell(picture, [("cat", None)], models=[0, 1])
    with pytest.raises(ValueError, match=r"picture: expected uint8 \(H, W, 3\), got float64 \(2, 2, 3\)"):
        Cell(np.zeros((2, 2, 3)))


def test_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one BackgroundBiasReport"):
        report_to_html([], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError):
        report_to_html([make_report(n=8)], tmp_path / "absent" / "r.html")


def test_to_html_of_a_report_writes_the_same_page(tmp_path: Path) -> None:
    report = make_report(n=40)
    report.to_html(tmp_path / "a.html", title="T")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == report_html([report], title="T")


def test_pictures_are_png_of_their_size() -> None:
    import base64
    import io

    from PIL import Image

    from torch_bgdebias.probe.page.pictures import png

    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = base64.b64decode(png(picture).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)


@pytest.mark.parametrize(
    ("value", "told"), [(0.504, "+50.4"), (-0.007, "−0.7"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")]
)
def test_points(value: float, told: str) -> None:
    assert charts.points(value) == told


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (-0.03, 0.57), (0.0, 3.7), (-1.0, 1.0), (0.0, 1e-6), (0, 1234.5)]
)
def test_ticks_cover_the_range_in_a_few_round_steps(low: float, high: float) -> None:
    marks = charts.ticks(low, high)
    assert marks[0] <= low + 1e-9
    assert marks[-1] >= high - 1e-9
    assert 2 <= len(marks) <= 8 or low == high


def test_charts_draw_unknown_values_and_holes() -> None:
    known = Estimate(0.5, 0.4, 0.6, 10)
    assert charts.bars(["a", "b"], {"m": [known, NAN]}, label="x").count("<rect") == 1
    assert "not known" in charts.intervals([("m", None)], label="x")
    assert charts.lines({"m": [0.1, math.nan, 0.3]}, label="x", colours={"m": 0}).count("<circle") == 2
    assert "<svg" in charts.lines({"m": []}, label="x", colours={})
    assert "nan" not in charts.histogram({"m": [math.nan, 0.0, 1.0], "n": []}, label="x")


def test_histogram_shares_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).random(100)
    expected = np.histogram(values, bins=20, range=(0, 1))[0] / 100
    assert charts._shares(values.tolist(), 20) == pytest.approx(expected.tolist())


def test_heatmaps_are_red_for_blue_against_and_outlined() -> None:
    picture = np.full((8, 8, 3), 100, np.uint8)
    attribution = torch.full((8, 8), 2.0)
    attribution[4:] = -2
    attribution[:, 7] = 0
    mask = torch.zeros(8, 8)
    mask[2:7, 2:7] = 1
    heat = packed_heatmap(attribution, (8, 8))
    assert (np.sign(unpacked_heatmap(heat)) == np.sign(attribution.numpy())).all()
    shown = heat_picture(picture, heat, packed_mask(mask, (8, 8))).astype(int)
    assert shown[0, 0].tolist() == [190, 20, 30]
    assert shown[7, 0].tolist() == [25, 70, 200]
    assert len(set(shown[0, 7].tolist())) == 1  # no evidence: the grey of the picture
    assert (shown[2, 2:7] == 0).all()
    assert (shown[1, 2:7] == 255).all()
    assert (shown[3, 3] == [190, 20, 30]).all()
    assert (packed_heatmap(torch.zeros(4, 4), (8, 8)) == NEUTRAL).all()
    assert (heat_picture(picture, packed_heatmap(torch.zeros(8, 8), (8, 8))) == 177).all()


def test_figures_for_loggers() -> None:
    pytest.importorskip("matplotlib")
    figures = report_figures(make_report(examples=2, score=True))
    assert set(figures) == {"variants", "classes", "scores/pixel_ratio/grad_cam", "examples", "heatmaps"}
    for figure in figures.values():
        figure.canvas.draw()
    bars = figures["variants"].axes[0].patches
    assert max(bar.get_width() for bar in bars) == pytest.approx(
        100 * max(v.accuracy.value for v in make_report().variants.values()), abs=1e-6
    )


PROBE = """
const images = [...document.images];
const table = document.querySelector("table.sortable");
const order = () => [...table.tBodies[0].rows].map((r) => r.cells[0].dataset.value);
const click = (column) => { table.querySelector(`th[data-column="${column}"] button`).click(); return order(); };
const seen = {
  pictures: images.length, loaded: images.filter((i) => i.complete && i.naturalWidth > 0).length,
  start: order(), gap_down: click(4), gap_up: click(4), name_up: click(0), name_down: click(0),
  sorted: [...table.querySelectorAll("th[data-column]")].map((h) => h.getAttribute("aria-sort")),
  fetched: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
};
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


def chromium() -> str:
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if found is None:
        if os.environ.get("TORCH_BGDEBIAS_BROWSER") == "required":
            pytest.fail("TORCH_BGDEBIAS_BROWSER is required, and there is no Chromium")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return found


@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser_pictures_load_and_headings_sort(tmp_path: Path, width: int) -> None:
    page = make_page().replace("</body>", f"<script>addEventListener('load', () => {{{PROBE}}})</script></body>")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync"
    done = subprocess.run(
        [
            chromium(),
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            "--virtual-time-budget=2000",
            "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, f"the page's script did not run: {done.stderr[-500:]}"
    seen = json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    gaps = {c.name: c.bg_gap.value for c in make_report().per_class}
    assert seen["pictures"] == seen["loaded"] == 2 * 3 + 1
    assert seen["start"] == NAMES
    assert seen["gap_down"] == sorted(NAMES, key=lambda n: -gaps[n])
    assert seen["gap_up"] == sorted(NAMES, key=lambda n: gaps[n])
    assert seen["name_up"] == seen["name_down"][::-1]
    assert seen["name_up"][-1] == "desert & co"
    assert seen["sorted"] == ["descending"] + ["none"] * 8
    assert seen["fetched"] == []
    assert seen["overflow"] <= 0
