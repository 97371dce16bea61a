"""The page holds what the report says, and hostile names stay text."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from hostile import HOSTILE

from torch_bgdebias.audit import AuditReport
from torch_bgdebias.audit.cues import CUES, cue_of
from torch_bgdebias.audit.page import _cell, _map_picture
from torch_bgdebias.audit.results import Finding, Giveaway, Reading
from torch_bgdebias.audit.testing import ALL
from torch_bgdebias.metrics.statistics import Interval


def report(names, *, masked=True, alarms=True):
    readings = [
        Reading(cue, label, 0.01 if alarms else 0.7, Interval(0.81, 0.7, 0.9, 100), "linear", 12)
        for label in range(len(names))
        for cue in (*CUES, cue_of(f"column {names[0]}"))
    ]
    giveaways = [Giveaway(0, names[0], 0, b"\xff\xd8")]
    plane = np.linspace(0, 1, 144).reshape(12, 12)
    plane[0, 0] = np.nan
    return AuditReport(
        classes=tuple(names),
        counts=(50,) * len(names),
        total=1000,
        masked=masked,
        findings=[Finding(reading, giveaways) for reading in readings] if alarms else [],
        readings=readings,
        tests=40,
        maps=dict.fromkeys(range(len(names)), plane),
        thresholds=dict.fromkeys(range(len(names)), 0.4),
        mean_picture=np.zeros((96, 96, 3), np.uint8),
        unreadable=[(names[0], names[0])],
        left_out=[(names[0], "no mask")],
        notes=[names[0]],
        settings={"level": 0.05, "seed": 0},
    )


def test_hostile_names_stay_text(tmp_path):
    given = report(HOSTILE)
    given.to_html(tmp_path / "a.html", title=HOSTILE[0])
    page = (tmp_path / "a.html").read_text()
    assert page.count("<script>") == 1  # the page's own
    assert all(f"{name}<" not in page for name in HOSTILE if "<" in name)
    assert "<img src=x" not in page
    assert "&lt;script&gt;hacked()" in page
    assert "{{ 7 * 7 }}" in page  # shown, not worked out
    assert "default-src 'none'" in page


def test_first_screen_says_who_by_what_how_surely_and_what_to_do(tmp_path):
    given = report(["ship", "plane", "car"])
    given.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    first = page[: page.index("Every class and every cue")]
    for words in ("3 of 3 classes can be told by what is not the object", "kind of scene", "0.81 [0.70, 0.90]"):
        assert words in first
    for words in ("BackgroundSwap or CLAD in training", "frames, rulers, lettering along the border", "and 2 more"):
        assert words in first
    assert "places beyond chance (0.40)" in page


@pytest.mark.parametrize("masked", [True, False])
def test_what_goes_with_a_finding_leads_to_instructions_on_the_page(masked, tmp_path):
    report(["ship", "plane", "car"], masked=masked).to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    named = set(re.findall(r"href='#how-([a-z]+)'", page[: page.index("Every class and every cue")]))
    assert named == ({"swap"} if masked else {"swap", "masks"})
    assert set(re.findall(r"id='how-([a-z]+)'", page)) == named
    given = report(["ship", "plane"])
    corners = [finding for finding in given.findings if finding.reading.cue.name == "corners"]
    dataclasses.replace(given, findings=corners).to_html(tmp_path / "b.html")
    assert "(how: <a href='#how-isnet'>ISNet</a>, <a href='#how-swap'>swap</a>)" in (tmp_path / "b.html").read_text()
    report(["ship", "plane"], alarms=False).to_html(tmp_path / "b.html")
    assert "how-" not in (tmp_path / "b.html").read_text().replace("how > div", "")


def test_all_classes_together_are_no_further_class(tmp_path):
    given = report(["ship", "plane", "car"])
    together = Reading(CUES[0], ALL, 0.01, Interval(0.8, 0.7, 0.9, 100), "linear", 12)
    given = dataclasses.replace(given, findings=[*given.findings, Finding(together)])
    given.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "and 2 more" in page
    assert "and 3 more" not in page


def test_without_findings_it_says_what_that_means(tmp_path):
    given = report(["ship", "plane"], alarms=False, masked=False)
    given.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "Nothing outside the object tells the classes" in page
    assert "It is no proof" in page
    assert "There are no masks" in page
    assert "Pictures that give most away" not in page
    assert given.is_clean


def test_json_holds_every_reading(tmp_path):
    given = report(["ship", "plane"])
    given.to_json(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["schema"] == "torch_bgdebias.audit/1"
    assert len(content["readings"]) == 2 * (len(CUES) + 1)
    assert content["maps"]["ship"][0][0] is None
    assert content["findings"][0]["giveaways"] == [{"index": 0, "name": "ship", "class": 0}]
    assert content["readings"][0]["auc"] == 0.81


def test_summary(capsys):
    text = report(["ship", "plane"]).summary()
    assert "The two classes can be told by what is not the object." in text
    assert "ship / plane" in text
    assert "1 pictures cannot be read: ship" in text
    assert "Check by hand" in text


def test_tiles_that_are_not_known_are_lighter_and_those_beyond_chance_framed():
    mean = np.full((48, 48, 3), 100, np.uint8)
    plane = np.zeros((12, 12))
    plane[0, 0], plane[5, 5] = np.nan, 1.0
    picture = _map_picture(mean, plane, 0.4).astype(int)
    side = len(picture) // 12
    grey = 0.5 * 100 + 120
    assert (picture[side // 2, side // 2] == int(0.8 * grey + 40)).all()
    assert (picture[2 * side + 1, 2 * side + 1] == int(grey)).all()
    middle, edge = 5 * side + side // 2, 5 * side
    np.testing.assert_allclose(picture[middle, middle], 0.15 * grey + 0.85 * np.array([190, 20, 30]), atol=1)
    for row, column in ((edge, middle), (edge + side - 1, middle), (middle, edge), (middle, edge + side - 1)):
        assert (picture[row, column] == 0).all()
    assert (picture[edge - 1, middle] == int(grey)).all()


def test_a_cell_is_as_dark_as_its_area_is_far_from_one_half():
    def shade(area):
        reading = Reading(CUES[0], 0, 0.2, Interval(area, area - 0.01, area + 0.01, 50), "linear", 0)
        cell = _cell(reading, 0.05)
        return None if cell is None else cell.shade

    assert [shade(area) for area in (0.3, 0.5, 0.75, 1.0)] == [0, 0, 0.25, 0.5]
    assert shade(float("nan")) is None
