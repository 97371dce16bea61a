"""The numbers of an audit: readings, findings, maps, and what was left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.audit.cues import Cue
from torch_bgdebias.metrics.statistics import Interval

__all__ = ["AuditResult", "Finding", "Giveaway", "Reading"]


@dataclasses.dataclass(frozen=True)
class Giveaway:
    """A picture whose background predicts its class.

    Attributes:
        index: its position in the data set.
        name: of its file, or its position.
        label: number of its class.
        thumbnail: JPEG.
    """

    index: int
    name: str
    label: int
    thumbnail: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How well one class is predicted from one cue.

    Attributes:
        cue: the cue.
        label: number of the class that is tested against the rest (of two: against the other); -1: all together.
        p_value: corrected for everything that was tried.
        area: AUC of the best learner's held-out scores, 0.5 by chance, with an interval that holds for all learners.
        learner: which one: ``single``, ``groups``, ``linear`` or ``network``.
        apart: pictures of the class at the head of the held-out ranking, nine in ten of which are of it; 0 of all.
    """

    cue: Cue
    label: int
    p_value: float
    area: Interval
    learner: str
    apart: int


@dataclasses.dataclass(frozen=True)
class Finding:
    """A significant reading, with the pictures that show it most clearly."""

    reading: Reading
    giveaways: Sequence[Giveaway] = ()


@dataclasses.dataclass(frozen=True)
class AuditResult:
    """What can be read off a data set without looking at its objects.

    Attributes:
        classes: names by number.
        counts: pictures that were inspected, by class.
        total: pictures that there are, ``None`` if unknown.
        masked: whether the pictures have masks.
        findings: what chance does not explain, the surest first.
        readings: every cue and class that was tried.
        tests: how many tests the p-values are corrected for.
        maps: class -> (12, 12) how well it goes with each place of the picture plane, 0 to 1, NaN where not looked at.
        thresholds: class -> what no place exceeds by chance.
        mean_picture: uint8 (h, w, 3), the mean of the thumbnails.
        unreadable: (name, reason) of what could not be read.
        left_out: (name, reason) of pictures and classes that were not looked at.
        notes: what else the reader should know.
        settings: the audit's options.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    total: int | None
    masked: bool
    findings: Sequence[Finding]
    readings: Sequence[Reading]
    tests: int
    maps: dict[int, NDArray[np.float64]]
    thresholds: dict[int, float]
    mean_picture: NDArray[np.uint8]
    unreadable: Sequence[tuple[str, str]]
    left_out: Sequence[tuple[str, str]]
    notes: Sequence[str]
    settings: dict[str, Any]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was seen that chance does not explain. It is no proof that there is nothing."""
        return not self.findings

    @property
    def labels(self) -> list[int]:
        """The classes that were tested against the rest: the second of two, or all if there are more."""
        return sorted({reading.label for reading in self.readings if reading.label >= 0})

    def spoken(self, label: int) -> str:
        """What a reading is about: the class, or both of two."""
        if label < 0:
            return "all classes"
        nonempty = [name for name, count in zip(self.classes, self.counts, strict=True) if count]
        return " / ".join(nonempty) if len(nonempty) == 2 else self.classes[label]
