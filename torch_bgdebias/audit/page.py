"""The HTML page of an audit, in the style of the package's reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torch_bgdebias._version import __version__
from torch_bgdebias.audit.cues import Cue
from torch_bgdebias.audit.facts import Fact, facts_of
from torch_bgdebias.audit.results import AuditResult, Finding, Reading
from torch_bgdebias.audit.templating import environment, jpeg
from torch_bgdebias.audit.words import advice_for, area_words, same_words, title_of, verdict
from torch_bgdebias.probe.page.pictures import embedded
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.advice import How
from torch_bgdebias.probe.results.spelling import p_words

__all__ = ["audit_page"]

#: rows on the first screen, findings that are shown with pictures, maps
_FIRST, _SHOWN, _MAPS = 8, 24, 24
_SIDE = 240


def audit_page(report: AuditResult, title: str) -> str:
    """A whole page, with its style and pictures inside."""
    sections = [
        _header(report, title),
        _first_screen(report),
        _matrix(report),
        _maps_section(report),
        _pictures_section(report),
    ]
    sections += [_how_section(report), _record_section(report)]
    present = [section for section in sections if section is not None]
    return environment().get_template("page.html").render(title=title, sections=present, version=__version__)


def _header(report: AuditResult, title: str) -> Section:
    looked = sum(report.counts)
    of = f" of {report.total:,}" if report.total not in (None, looked) else ""
    n_classes = sum(count > 0 for count in report.counts)
    masks = "with" if report.masked else "without"
    line = f"{looked:,}{of} pictures · {n_classes} classes · {masks} masks · before any training"
    return Section("header.html", {"title": title, "line": line})


@dataclass(frozen=True)
class Row:
    """A finding on the first screen."""

    spoken: str
    cue: str
    area: str
    p_value: str
    apart: str
    method: str
    check: str
    how: tuple[How, ...]


def _first_screen(report: AuditResult) -> Section:
    rows = _rows(report)
    return Section(
        "audit_first.html",
        {
            "sentences": verdict(report),
            "rows": rows[:_FIRST],
            "more": max(0, len(rows) - _FIRST),
            "tests": report.tests,
        },
    )


def _how_section(report: AuditResult) -> Section | None:
    """The instructions to which the first screen's rows point."""
    shown = list(dict.fromkeys(name for row in _rows(report)[:_FIRST] for name in row.how))
    return Section("how.html", {"shown": shown}, anchor="how", heading="What to do, and how") if shown else None


def _rows(report: AuditResult) -> list[Row]:
    return [_row(report, fact) for fact in facts_of(_strongest_of_each_cue(report), by_class=False)]


def _strongest_of_each_cue(report: AuditResult) -> list[Finding]:
    """The strongest finding of each cue, those of the background first."""
    best: dict[str, Finding] = {}
    for finding in report.findings:
        name = finding.reading.cue.name
        if name not in best or finding.reading.area.value > best[name].reading.area.value:
            best[name] = finding
    ranks = {"background": 0, "box": 2, "file": 1, "source": 1, "whole": 3}
    return sorted(best.values(), key=lambda f: (ranks[f.reading.cue.kind], -f.reading.area.value))


def _row(report: AuditResult, fact: Fact) -> Row:
    reading = fact.lead.reading
    advices = [advice_for(finding.reading.cue, masked=report.masked) for finding in (fact.lead, *fact.others)]
    same_cue = [f.reading.label for f in report.findings if f.reading.cue.name == reading.cue.name]
    further = {label for label in same_cue if label >= 0} - {reading.label}  # all classes together are no further one
    others = f" and {len(further)} more" if further and reading.label >= 0 else ""
    return Row(
        report.spoken(reading.label) + others,
        title_of(reading.cue, masked=report.masked) + (f"; {same_words(report, fact)}" if fact.others else ""),
        area_words(reading),
        p_words(reading.p_value),
        str(reading.apart) if reading.apart else "few",
        advices[0].method,
        "; ".join(dict.fromkeys(advice.check for advice in advices)),
        advices[0].how,
    )


@dataclass(frozen=True)
class MatrixCell:
    """A class and a cue: AUC, how dark, whether chance is ruled out."""

    value: str
    shade: float
    sure: bool
    words: str


def _matrix(report: AuditResult) -> Section:
    """Classes in rows, cues in columns."""
    cues: dict[str, Cue] = {reading.cue.name: reading.cue for reading in report.readings}
    by_pair = {(reading.label, reading.cue.name): reading for reading in report.readings}
    level = report.settings["level"]
    rows = []
    together = [-1] if any(reading.label < 0 for reading in report.readings) else []
    for label in [*report.labels, *together]:
        cells = [_cell(by_pair.get((label, name)), level) for name in cues]
        rows.append((report.spoken(label), cells))
    heads = [title_of(cue, masked=report.masked) for cue in cues.values()]
    return Section("audit_matrix.html", {"heads": heads, "rows": rows, "level": f"{level:g}"})


def _cell(reading: Reading | None, level: float) -> MatrixCell | None:
    if reading is None or not np.isfinite(reading.area.value):
        return None
    shade = 0.5 * min(1.0, max(0.0, 2 * (reading.area.value - 0.5)))
    significant = reading.p_value <= level
    return MatrixCell(
        f"{reading.area.value:.2f}",
        shade,
        significant,
        f"{area_words(reading)}, {p_words(reading.p_value)}, {reading.learner}",
    )


def _maps_section(report: AuditResult) -> Section | None:
    labels = [finding.reading.label for finding in report.findings if finding.reading.cue.kind == "background"]
    labels_shown = list(dict.fromkeys(label for label in labels if label in report.maps))[:_MAPS]
    if not labels_shown:
        return None
    panels = []
    for label in labels_shown:
        plane, threshold = report.maps[label], report.thresholds[label]
        strongest = float(np.nanmax(plane))
        n_significant = int((plane > threshold).sum())
        words = f"strongest place {strongest:.2f}; {n_significant} places beyond chance ({threshold:.2f})"
        panels.append((report.spoken(label), embedded(_map_picture(report.mean_picture, plane, threshold)), words))
    return Section("audit_maps.html", {"panels": panels})


def _map_picture(mean: NDArray[np.uint8], plane: NDArray[np.float64], threshold: float) -> NDArray[np.uint8]:
    """The mean picture in grey under the map: red where a place goes with the class, framed where chance does not."""
    side = _SIDE // len(plane)
    size = (side * len(plane), side * len(plane))
    grey = np.asarray(Image.fromarray(mean).convert("L").resize(size)).astype(np.float64)[..., None]
    values = np.kron(np.nan_to_num(plane, nan=0.0), np.ones((side, side)))[..., None]
    strength = np.clip(values / max(float(np.nanmax(plane)), threshold, 1e-6), 0, 1) ** 1.5
    unknown = np.kron(np.isnan(plane), np.ones((side, side), bool))[..., None]
    tinted = (1 - 0.85 * strength) * (0.5 * grey + 120) + 0.85 * strength * np.array([190.0, 20.0, 30.0])
    tinted = np.where(unknown, 0.8 * tinted + 40, tinted)
    for row, column in np.argwhere(np.nan_to_num(plane, nan=0.0) > threshold):
        rows, columns = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
        tile = tinted[rows, columns]
        tile[[0, -1], :] = tile[:, [0, -1]] = 0.0
    return np.ascontiguousarray(tinted.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Shot:
    """A picture under a finding."""

    source: str
    name: str
    label: str


def _pictures_section(report: AuditResult) -> Section | None:
    rows = []
    for finding in _strongest_of_each_cue(report)[:_SHOWN]:
        reading = finding.reading
        shots = [
            Shot(
                jpeg(g.thumbnail),
                g.name,
                report.classes[g.label],
            )
            for g in finding.giveaways
        ]
        rows.append((report.spoken(reading.label), title_of(reading.cue, masked=report.masked), shots))
    return Section("audit_pictures.html", {"rows": rows}) if rows else None


def _record_section(report: AuditResult) -> Section:
    class_counts = [(name, f"{count:,} pictures") for name, count in zip(report.classes, report.counts, strict=True)]
    settings = [(name.replace("_", " "), str(value)) for name, value in report.settings.items()]
    return Section(
        "audit_record.html",
        {
            "classes": class_counts,
            "settings": [*settings, ("tests", str(report.tests))],
            "unreadable": list(report.unreadable)[:20],
            "unread": len(report.unreadable),
            "left_out": list(report.left_out)[:20],
            "left": len(report.left_out),
            "notes": list(report.notes),
        },
    )
