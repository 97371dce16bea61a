"""The HTML report: what it says, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_pages import NAMES, make_page, make_report, parse

from torch_bgdebias.probe import compare_models, report_to_html
from torch_bgdebias.probe.page.render import section_html
from torch_bgdebias.probe.page.tables import classes_section
from torch_bgdebias.probe.report import Cell, ImageGrid, report_html, summarise
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.spelling import points


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
    assert points(report.bg_gap.value) in text
    assert "it reads part of its answer off the background" in text
    assert "hardly matters any more" in text


def test_models_on_other_images_are_not_compared_in_pairs() -> None:
    reports = [make_report(), make_report("other", first_id=10_000)]
    assert compare_models(reports) == [None]
    assert "not measured on the same images" in report_html(reports)


def test_every_class_has_a_row_that_sorts_by_its_value() -> None:
    page = section_html(classes_section([make_report()]))
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
    page = report_html([summarise(images, model="m", class_names=["a", "b"])])
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
