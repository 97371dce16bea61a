"""``audit``: how well the class can be predicted from everything but the object, before any training."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torch_bgdebias.audit.appearance import GRID
from torch_bgdebias.audit.backbone import backbone_embedding
from torch_bgdebias.audit.cues import COLUMN, View, box_basis, cue_of, place_bases, views_of
from torch_bgdebias.audit.file_facts import fact_table
from torch_bgdebias.audit.gathering import Gathered, Say, gather
from torch_bgdebias.audit.learners import Floats, Folds, label_folds
from torch_bgdebias.audit.permuting import shuffled_labels
from torch_bgdebias.audit.pictures import PictureSource, as_source
from torch_bgdebias.audit.report import AuditReport
from torch_bgdebias.audit.results import Finding, Giveaway, Reading
from torch_bgdebias.audit.settings import AuditSettings
from torch_bgdebias.audit.testing import ALL, Outcome, Tested, area, place_scores, telling, test_everything
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.data.settings import FolderSettings
from torch_bgdebias.files import first_few
from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["audit"]

#: a class of fewer pictures, or groups, says nothing
LEAST = 8
#: one value a picture, by position, or by the file's name or its path below the data set's folder
Values = Sequence[Any] | Mapping[str, Any]
_SHARE = 0.9


def audit(
    dataset: Any,
    *,
    groups: Values | str | None = None,
    columns: Mapping[str, Values] | None = None,
    masks: FolderSettings | None = None,
    spec: BatchSpec | None = None,
    settings: AuditSettings | None = None,
    say: Say | None = None,
) -> AuditReport:
    """Test whether simple learners can predict the classes from anything but the object.

    Args:
        dataset: a folder (``images/<class>/`` with or without ``masks/<class>/``, or ``<class>/``), a data set of
            (image, label) or (image, label, mask), or a loader of such batches. Images may have any size.
        groups: what belongs together (pictures of one patient) and is never on both sides of a split: a value a picture
            or a regular expression that takes it from a file's path below the folder.
        columns: further facts by name (site, camera), a value a picture each; each is a cue.
        masks: how a folder's masks are read.
        spec: where image, label and mask are in an item or batch that is no tuple of these.
        settings: how many pictures, how many shuffles, which level.
        say: receives progress messages: how many pictures, how long it will take.

    Returns:
        AuditReport: findings, the surest first, with ``to_html``, ``to_json`` and ``summary``.

    Raises:
        FileNotFoundError: no folder, or no pictures. TypeError: items that hold no image and label.
        ValueError: fewer than two classes of eight pictures, or images that are not in [0, 1].
    """
    options = settings or AuditSettings()
    source = as_source(dataset, masks=masks, spec=spec, restored=Preprocessing(mean=options.mean, std=options.std))
    embed = None if options.backbone is None else backbone_embedding(options)
    gathered = gather(source, options.images, options.seed, embed=embed, say=say or (lambda _: None))
    _warn_of_unreadable(source, len(gathered.labels))
    classes = _names(source, gathered)
    units = _groups(groups, gathered, source)
    gathered, units, small = _large_classes(gathered, units, classes)
    for name, values in (columns or {}).items():
        numbers = fact_table(
            [{name: _number_or_text(value)} for value in _values_of_pictures(name, values, gathered, source)]
        )[0]
        gathered.views[COLUMN + name] = numbers.astype(np.float32)
    notes = [*_alias_note(gathered, classes), *_mask_notes(gathered)]
    source.left_out += small
    return _Audit(options, gathered, units, classes, source).report(notes)


@dataclasses.dataclass(frozen=True)
class Steps:
    """What was tested, and with which folds.

    Attributes:
        outcome: the tests.
        views: what was learnt from.
        places: the picture plane's places.
        asked: the classes that are tested against the rest: the second of two, or all if there are more.
        folds: (N,).
    """

    outcome: Outcome
    views: list[View]
    places: list[tuple[int, Floats]]
    asked: list[int]
    folds: Folds


def tests_of(gathered: Gathered, units: NDArray[np.int64], options: AuditSettings) -> Steps:
    """Test every cue of what was gathered.

    Args:
        gathered: features and labels.
        units: (N,) the group of each picture, or its own number.
        options: ``permutations``, ``folds``, ``level`` and ``seed`` are used.
    """
    labels = gathered.labels
    occurring = np.unique(labels)
    tested = [int(occurring[1])] if len(occurring) == 2 else [int(label) for label in occurring]
    count = min(options.folds, int(min(np.bincount(labels)[occurring])))
    folds = label_folds(labels, units, count, options.seed)
    # sub-seeds are sums here and below, not by `derive_seed`: published figures rest on these draws
    orders = shuffled_labels(labels, units, folds, options.permutations, options.seed + 1)
    views = views_of(gathered)
    places = place_bases(gathered.views["places"], GRID * GRID, box_basis(gathered))
    outcome = test_everything(views, places, orders, tested, seed=options.seed, level=options.level)
    return Steps(outcome, views, places, tested, folds)


@dataclasses.dataclass
class _Audit:
    """State that the steps of an audit share."""

    options: AuditSettings
    gathered: Gathered
    units: NDArray[np.int64]
    classes: tuple[str, ...]
    source: PictureSource

    def report(self, notes: list[str]) -> AuditReport:
        """Learn, test, and put everything together."""
        labels, options = self.gathered.labels, self.options
        steps = tests_of(self.gathered, self.units, options)
        outcome = steps.outcome
        readings, scores = self._readings(steps)
        significant = sorted(
            (reading for reading in readings if reading.p_value <= options.level),
            key=lambda reading: (reading.p_value, -abs(reading.area.value - 0.5)),
        )
        findings = [Finding(reading, self._giveaways(scores[id(reading)], reading.label)) for reading in significant]
        counts = np.bincount(labels, minlength=len(self.classes))
        return AuditReport(
            classes=self.classes,
            counts=tuple(int(n) for n in counts),
            total=self.source.total,
            masked=bool(self.gathered.masked.any()),
            findings=findings,
            readings=readings,
            tests=len(outcome.tests),
            maps=outcome.maps,
            thresholds=outcome.thresholds,
            mean_picture=_mean_picture(self.gathered.thumbnails),
            unreadable=self.source.unreadable,
            left_out=self.source.left_out,
            notes=notes,
            settings={k: v for k, v in dataclasses.asdict(options).items() if v is not None},
        )

    def _readings(self, steps: Steps) -> tuple[list[Reading], dict[int, NDArray[np.float64]]]:
        """One a cue and class: the surest of its tests, and the best learner of that view."""
        surest: dict[tuple[str, int], Tested] = {}
        for test in steps.outcome.tests:
            key = (test.cue, test.label)
            if key not in surest or (test.p_value, -test.z) < (surest[key].p_value, -surest[key].z):
                surest[key] = test
        views = {test.view for test in surest.values()}
        labels = self.gathered.labels
        by_view = {
            view.name: telling(view, labels, steps.asked, steps.folds, self.options.seed + number)
            for number, view in enumerate(steps.views)
            if view.name in views
        }
        if "places" in views:
            by_view["places"] = {"single": place_scores(steps.places, labels, steps.asked, steps.folds)}
        together = self.units if len(np.unique(self.units)) < len(self.units) else None
        readings: list[Reading] = []
        scores: dict[int, NDArray[np.float64]] = {}
        for (cue, label), test in surest.items():
            rows: Any = slice(None) if label == ALL else steps.asked.index(label)
            truth = (labels[:, None] == np.asarray(steps.asked))[:, rows]
            columns = {name: table[:, rows] for name, table in by_view[test.view].items()}
            areas = {name: area(values, truth, together) for name, values in columns.items()}
            best = max(areas, key=lambda name: areas[name].value)
            of_cue = columns[best] if label != ALL else np.where(truth, columns[best], -np.inf).max(1)
            separated = 0 if label == ALL else _separated_positives(of_cue, truth)
            readings.append(Reading(cue_of(cue), label, test.p_value, areas[best], best, separated))
            scores[id(readings[-1])] = of_cue
        return readings, scores

    def _giveaways(self, scores: NDArray[np.float64], label: int) -> list[Giveaway]:
        """The pictures whose class the scores predict most confidently; of two classes those of either."""
        gathered, limit = self.gathered, self.options.examples
        in_class = gathered.labels == label if label != ALL else np.ones(len(scores), bool)
        examples = [row for row in np.argsort(-scores) if in_class[row]][:limit]
        if len(np.unique(gathered.labels)) == 2:
            counterexamples = [row for row in np.argsort(scores) if not in_class[row]]
            examples = examples[: limit - limit // 2] + counterexamples[: limit // 2]
        names = [gathered.paths[row] for row in examples]
        return [
            Giveaway(
                int(gathered.index[row]),
                str(gathered.index[row]) if path is None else path.name,
                int(gathered.labels[row]),
                gathered.thumbnails[row],
            )
            for row, path in zip(examples, names, strict=True)
        ]


def _separated_positives(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> int:
    """Positives at the head of the ranking, down to where fewer than nine in ten are; 0 of a head of under ten."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    sizes = np.arange(1, len(order) + 1)
    good = np.flatnonzero((hits >= _SHARE * sizes) & (sizes >= 10))
    return int(hits[good[-1]]) if len(good) else 0


def _names(source: PictureSource, gathered: Gathered) -> tuple[str, ...]:
    if not len(gathered.labels):
        reasons = first_few((f"{name} ({reason})" for name, reason in source.unreadable), 2)
        raise ValueError(f"dataset: expected pictures, got none that can be read; {reasons or 'it is empty'}")
    if gathered.labels.min() < 0:
        raise ValueError(f"label: expected classes 0, 1, ..., got {int(gathered.labels.min())}")
    if gathered.labels.max() >= max(len(gathered.labels), 10_000):
        raise ValueError(f"label: expected classes 0, 1, ..., got {int(gathered.labels.max())}")
    numbers = range(int(gathered.labels.max()) + 1)
    return source.classes + tuple(f"class {number}" for number in numbers[len(source.classes) :])


def _large_classes(
    gathered: Gathered, units: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[Gathered, NDArray[np.int64], list[tuple[str, str]]]:
    """The pictures of classes that are large enough, and those that are not."""
    counts = [len(np.unique(units[gathered.labels == label])) for label in range(len(classes))]
    small = [label for label, count in enumerate(counts) if count < LEAST]
    if len(classes) - len(small) < 2:
        listed = first_few(f"{name}: {count}" for name, count in zip(classes, counts, strict=True))
        raise ValueError(
            f"dataset: expected at least two classes of {LEAST} pictures (or groups) each, got {listed}; of fewer "
            "nothing can be said"
        )
    rows = ~np.isin(gathered.labels, small)
    reasons = [(classes[label], f"class of {counts[label]}, too few") for label in small]
    return gathered.subset(rows), units[rows], reasons


def _groups(groups: Values | str | None, gathered: Gathered, source: PictureSource) -> NDArray[np.int64]:
    """A number a picture: the group's, or its own."""
    if groups is None:
        return np.arange(len(gathered.labels))
    if isinstance(groups, str):
        pattern = re.compile(groups)
        if any(path is None for path in gathered.paths):
            raise ValueError("groups: expected a value a picture where pictures are no files, got a pattern")
        names = [_table_keys(path, source.root)[0] for path in gathered.paths]
        matches = [pattern.search(name) for name in names]
        values: list[Any] = [
            name if m is None else (m.groups() or (m[0],))[0] for m, name in zip(matches, names, strict=True)
        ]
        if not any(matches):
            raise ValueError(f"groups: expected a pattern that fits file names such as {names[0]}, got {groups!r}")
    else:
        values = _values_of_pictures("groups", groups, gathered, source)
    return np.asarray(np.unique([str(value) for value in values], return_inverse=True)[1])


def _values_of_pictures(name: str, values: Values, gathered: Gathered, source: PictureSource) -> list[Any]:
    """The value of each picture that was read."""
    if isinstance(values, Mapping):
        keys = [_table_keys(path, source.root) for path in gathered.paths]
        values_of_each = [
            next((values[key] for key in keys_of_picture if key in values), None) for keys_of_picture in keys
        ]
        missing = sum(value is None for value in values_of_each)
        if 2 * missing > len(values_of_each):
            example = keys[0][0] if keys[0] else "no file"
            raise ValueError(
                f"{name}: expected values by file name, such as {example}, got none for {missing} pictures"
            )
        return values_of_each
    if source.total is not None and len(values) != source.total:
        raise ValueError(f"{name}: expected one value for each of {source.total} pictures, got {len(values)}")
    return [values[int(index)] for index in gathered.index]


def _table_keys(path: Path | None, root: Path) -> list[str]:
    """Names that a table may have for a picture."""
    if path is None:
        return []
    below = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return [below, f"images/{below}", str(path), path.name, path.stem]


def _number_or_text(value: Any) -> float | str:
    if value is None:
        return ""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _alias_note(gathered: Gathered, classes: tuple[str, ...]) -> list[str]:
    """Names that repeat the class are no cue: they are removed, with a note."""
    names = gathered.views.get("names")
    if names is None:
        return []
    present = np.unique(gathered.labels)
    means = np.stack([np.nanmean(names[gathered.labels == label], axis=0) for label in present])
    alias = ((means == 0) | (means == 1)).all(0) & (means.sum(0) == 1)
    if not alias.any():
        return []
    gathered.views["names"] = names[:, ~alias]
    class_text = ", ".join(classes[int(label)] for label in present[means[:, alias].argmax(0)][:5])
    return [f"Files of a class have a name of their own ({class_text}): taken for the class's name, and not tested."]


def _mask_notes(gathered: Gathered) -> list[str]:
    if not gathered.masked.any():
        return []
    unmasked = int((~gathered.masked).sum())
    return [f"{unmasked} pictures have no mask: of them the border was looked at."] if unmasked else []


def _warn_of_unreadable(source: PictureSource, read: int) -> None:
    if source.unreadable:
        listed = first_few((name for name, _ in source.unreadable), 3)
        warnings.warn(
            f"audit: {len(source.unreadable)} of {read + len(source.unreadable)} pictures cannot be read: {listed}",
            stacklevel=3,
        )


def _mean_picture(thumbnails: Sequence[bytes]) -> NDArray[np.uint8]:
    size = (96, 96)
    total = np.zeros((*size, 3))
    sampled = thumbnails[:: max(1, len(thumbnails) // 300)]
    for thumbnail in sampled:
        total += np.asarray(Image.open(io.BytesIO(thumbnail)).convert("RGB").resize(size))
    return (total / len(sampled)).round().astype(np.uint8)
