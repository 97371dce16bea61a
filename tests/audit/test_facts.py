"""Findings that say one thing are one fact, led by the cue that shows it best."""

from __future__ import annotations

from dataclasses import replace

from torch_bgdebias.audit.cues import cue_of
from torch_bgdebias.audit.facts import facts_of
from torch_bgdebias.audit.results import Finding, Reading
from torch_bgdebias.audit.testing import ALL
from torch_bgdebias.metrics.statistics import Interval


def findings(**areas: float) -> list[Finding]:
    """Of class 0, unless the name ends in the number of another one."""
    rows = []
    for name, value in areas.items():
        cue, label = (name[:-1], int(name[-1])) if name[-1].isdigit() else (name, 0)
        rows.append(Finding(Reading(cue_of(cue), label, 0.001, Interval(value, value, value, 90), "linear", 9)))
    return rows


def cues(given: list[Finding], **options: bool) -> list[list[str]]:
    facts = facts_of(given, **options)
    return [[finding.reading.cue.name for finding in (fact.lead, *fact.others)] for fact in facts]


def test_a_background_that_differs_is_one_fact_however_many_cues_show_it() -> None:
    given = findings(light=0.9, colours=0.97, corners=0.98, places=0.95, texture=0.8, compression=0.7, size=0.6)
    assert cues(given) == [["corners", "colours", "places", "light", "texture"], ["compression", "size"]]


def test_a_mark_in_a_corner_is_not_hidden_behind_a_weaker_background() -> None:
    given = findings(corners=0.99, places=0.98, border=0.7, light=0.72)
    assert cues(given) == [["corners", "places"], ["light", "border"]]


def test_all_classes_together_say_nothing_that_single_ones_say() -> None:
    together = findings(light=0.9, size=0.8)
    together = [replace(f, reading=replace(f.reading, label=ALL)) for f in together]
    assert cues([*together, *findings(light1=0.7)]) == [["size"], ["light"]]
    assert cues(together) == [["light"], ["size"]]


def test_classes_stay_apart_unless_one_row_a_cue_is_asked_for() -> None:
    given = findings(light0=0.9, light1=0.8, colours1=0.85)
    assert cues(given) == [["light"], ["colours", "light"]]
    assert cues(given, by_class=False) == [["light", "colours", "light"]]
    assert facts_of([]) == []
