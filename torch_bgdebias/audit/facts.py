"""Merges findings with one cause: a different background shows in its colours, its light and its corners alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch_bgdebias.audit.results import Finding
from torch_bgdebias.audit.testing import ALL

__all__ = ["Fact", "facts_of"]

#: cues of one place of the background, which the whole of it may explain
_LOCAL = frozenset({"border", "corners", "places"})
#: a place that tells the class by so much more than the whole background does is something of its own
_MORE = 0.02


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing that gives a class away, by the cue that shows it best.

    Attributes:
        about: what predicts it: a cue's kind, or ``"a place"`` of the background.
        lead: the finding with the highest AUC.
        others: findings that say the same, the highest AUC first.
    """

    about: str
    lead: Finding
    others: tuple[Finding, ...]


def facts_of(findings: Sequence[Finding], *, by_class: bool = True) -> list[Fact]:
    """Findings put together by what they are about: the background, a place of it, the box, the file, the source.

    All classes together are left out where single ones say the same. A place of the background (border, corners, one
    place) is a fact of its own only if it predicts the class better than the whole background does.

    Args:
        findings: in the order in which facts come, by the first finding of each.
        by_class: keep classes apart.
    """
    wholes: dict[int, float] = {}
    for finding in findings:
        reading = finding.reading
        if reading.cue.kind == "background" and reading.cue.name not in _LOCAL:
            label = reading.label if by_class else 0
            wholes[label] = max(wholes.get(label, 0.0), reading.area.value)
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        reading = finding.reading
        label = reading.label if by_class else 0
        standalone = reading.cue.name in _LOCAL and reading.area.value > wholes.get(label, 0.0) + _MORE
        groups.setdefault((label, "a place" if standalone else reading.cue.kind), []).append(finding)
    facts = []
    single = {about for label, about in groups if label != ALL}
    for (label, about), group in groups.items():
        if label == ALL and about in single:  # of all classes together what single ones say already
            continue
        lead, *others = sorted(group, key=lambda finding: -finding.reading.area.value)
        facts.append(Fact(about, lead, tuple(others)))
    return facts
