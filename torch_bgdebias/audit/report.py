"""``AuditReport``: the result of an audit, which can be printed, written as JSON, or shown as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._version import __version__
from torch_bgdebias.audit.page import audit_page
from torch_bgdebias.audit.results import AuditResult, Finding, Reading
from torch_bgdebias.audit.words import summary_lines
from torch_bgdebias.writing import write_text

__all__ = ["AuditReport"]

SCHEMA = "torch_bgdebias.audit/1"


class AuditReport(AuditResult):
    """The result of an audit: what predicts a data set's classes beside its objects; attributes in `AuditResult`."""

    def summary(self) -> str:
        """A few lines for a terminal."""
        return "\n".join(summary_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """The results as plain values, for JSON; thumbnails are left out."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "classes": list(self.classes),
            "counts": list(self.counts),
            "total": self.total,
            "masked": self.masked,
            "tests": self.tests,
            "findings": [_finding(finding) for finding in self.findings],
            "readings": [_reading(reading) for reading in self.readings],
            "maps": {self.classes[label]: _rows(plane) for label, plane in self.maps.items()},
            "thresholds": {self.classes[label]: value for label, value in self.thresholds.items()},
            "unreadable": [list(pair) for pair in self.unreadable],
            "left_out": [list(pair) for pair in self.left_out],
            "notes": list(self.notes),
            "settings": self.settings,
        }

    def to_json(self, path: str | Path) -> None:
        """Write `to_dict` as JSON; an interrupted run leaves no partial file."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False, default=str) + "\n")

    def to_html(self, path: str | Path, *, title: str = "Data audit") -> None:
        """Write one self-contained page."""
        write_text(path, audit_page(self, title))


def _reading(reading: Reading) -> dict[str, Any]:
    area = reading.area
    return {
        "cue": reading.cue.name,
        "kind": reading.cue.kind,
        "class": reading.label,
        "p_value": reading.p_value,
        "auc": _number(area.value),
        "low": _number(area.low),
        "high": _number(area.high),
        "chance": 0.5,
        "learner": reading.learner,
        "apart": reading.apart,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    giveaways = [{"index": g.index, "name": g.name, "class": g.label} for g in finding.giveaways]
    return {**_reading(finding.reading), "giveaways": giveaways}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rows(plane: NDArray[np.float64]) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in plane]
