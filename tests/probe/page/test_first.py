"""The first screen: whether, how much, for which classes, why, what next; and what to mind."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from documentation import run_alone
from probe_pages import make_report, parse

import torch_bgdebias.probe.page as page
from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.page.first import how_section, is_grave, issues_section, verdict_section
from torch_bgdebias.probe.page.render import Section, section_html
from torch_bgdebias.probe.report import report_html
from torch_bgdebias.probe.results.advice import HOW, next_steps
from torch_bgdebias.probe.results.spelling import points

#: what the instructions take for granted
GIVEN = """
from torch import nn
from torch_bgdebias import evaluate_background_bias
from torch_bgdebias.data import example_loader
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))
loader = example_loader(images_per_class=20, size=32)
image, label, mask = next(iter(loader))
evaluate_background_bias(model, loader).to_json("report.json")
"""


def texts(section: Section) -> str:
    return " ".join(" ".join(parse(section_html(section)).text).split())


def test_four_questions_are_answered() -> None:
    report = make_report()
    text = texts(verdict_section([report], []))
    places = [text.index(q) for q in ("Is it biased?", "For which classes?", "Why do we say so?", "What to do next?")]
    assert places == sorted(places)
    worst = max(report.per_class, key=lambda row: abs(row.bg_gap.value))
    assert f"{worst.name} {points(worst.bg_gap.value)}" in text


def test_what_a_smaller_gap_costs_stands_among_the_headline_figures() -> None:
    before = make_report(same=0.95, rand=0.25, n=800)
    for same, rows in ((0.45, 3), (0.95, 2)):
        reports = [before, make_report("after", same=same, rand=0.44, n=800, seed=1)]
        shown = verdict_section(reports, compare_models(reports)).data["rows"]
        assert len(shown) == rows
        if rows == 3:
            assert [card.value for card in shown[2].cards] == [
                f"{100 * r.accuracy('original').value:.1f}" for r in reports
            ]


def test_bars_of_several_models_share_a_scale() -> None:
    reports = [make_report(), make_report("after", rand=0.6, seed=1)]
    section = verdict_section(reports, compare_models(reports))
    first, second = (entry.classes for entry in section.data["classes"])
    assert first
    assert second
    scale = {round(line.bar.width / abs(float(line.gap.replace("−", "-"))), 2) for line in (*first, *second)}
    assert max(scale) - min(scale) <= 0.05
    many = verdict_section([*reports, make_report("m3", seed=2)], [None, None]).data["classes"]
    assert [len(entry.classes) for entry in many] == [3, 3, 3]
    assert [entry.more for entry in many] == [1, 1, 1]


def test_grave_issues_go_before_the_verdict() -> None:
    report = make_report()
    good = report_html([report])
    assert "id='issues'" not in good
    inverted = replace(report, settings={**report.settings, "object_edge_share": 0.9, "object_share": 0.8})
    shown = report_html([inverted])
    assert shown.index("id='issues'") < shown.index("id='verdict'")
    assert "First mend what stands above" in shown
    few = report_html([make_report(n=40)])
    assert few.index("id='issues'") > few.index("id='verdict'")
    assert is_grave(issues_section([inverted], []))
    assert not is_grave(issues_section([report], []))


@pytest.mark.parametrize("same", [0.9, 0.5, 0.1])
def test_every_step_leads_to_instructions(same: float) -> None:
    reports = [make_report(same=same, rand=0.5)]
    shown = section_html(how_section(reports, []))
    for step in next_steps(reports, []):
        assert f"id='how-{step.how}'" in shown


@pytest.mark.parametrize("name", [name for name in HOW if name not in ("masks", "more")])
def test_instructions_run(name: str, tmp_path: Path) -> None:
    markup = section_html(Section("how.html", {"shown": [name], "model": "m"}, "how", "How"))
    blocks = re.findall(r"aria-label='Python'><code>(.*?)</code>", markup, re.S)
    assert len(blocks) == 1
    run_alone(GIVEN + html.unescape(blocks[0]), tmp_path)


def test_cards_that_instructions_name_exist() -> None:
    text = (Path(page.__file__).parent / "templates" / "how.html").read_text(encoding="utf-8")
    cards = [re.findall(r"<code>(docs/[a-z]+\.md)</code>", part) for part in text.split("{% macro ")[2:]]
    assert len(cards) == len(HOW)
    assert all(cards), "each says where more stands"
    named = [name for names in cards for name in names]
    root = Path(page.__file__).parents[3]
    assert [name for name in named if not (root / name).is_file()] == []
