"""The HTML report: what it says, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_pages import make_page, make_report, parse

from torch_bgdebias.probe import compare_models, report_to_html
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


def test_every_section_is_in_the_contents() -> None:
    page = make_page()
    contents = re.search(r"<nav.*?</nav>", page, re.S)[0]
    listed = re.findall(r'href="#([^"]+)">([^<]+)<', contents)
    sections = re.findall(r"<section(?: class='hero')? id='([^']+)'><h2>([^<]+)</h2>", page)
    assert [anchor for anchor, _ in listed] == [*re.findall(r"<section class='hero' id='([^']+)'>", page),
                                                *[anchor for anchor, _ in sections]]  # fmt: skip
    assert listed[1:] == sections
    assert page.count("<section") == len(listed)


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name() -> None:
    for tag in re.findall(r"<(?:div class='wide[^>]*|pre[^>]*)>", make_page()):
        assert "tabindex='0'" in tag
        assert re.search(r"aria-label='[^']+'", tag)


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
    assert "hardly costs accuracy any more" in text


def test_models_on_other_images_are_not_compared_in_pairs() -> None:
    reports = [make_report(), make_report("other", first_id=10_000)]
    assert compare_models(reports) == [None]
    assert "not measured on the same images" in report_html(reports)


def test_a_report_without_variants_still_makes_a_page() -> None:
    images = ImageResults(
        np.arange(2, dtype=np.uint64), np.array([0, 1]), {"original": np.array([0, 0])}, {"original": np.ones(2, "f4")}
    )
    page = report_html([summarise(images, model="m", class_names=["a", "b"])])
    assert "is not known" in page
    parse(page)


def test_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one BackgroundBiasReport"):
        report_to_html([], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError):
        report_to_html([make_report(n=8)], tmp_path / "absent" / "r.html")
