"""A measurement as fields of FiftyOne samples: answers by background, errors, scores, heatmaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from torch_bgdebias._optional import require
from torch_bgdebias.probe.results.heatmaps import unpacked_heatmap
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.naming import class_label
from torch_bgdebias.probe.sharing.rows import was_hurt

__all__ = ["to_fiftyone"]


def to_fiftyone(report: Measurement, samples: Iterable[Any], *, field: str) -> int:
    """Write what a model said of each image into the sample that stands at its position.

    Args:
        report: measured with a loader that does not shuffle, so that positions are those in its data set.
        samples: a dataset, a view, or a list of samples, in the order of the data set that was measured.
        field: before the name of every field.

    Returns:
        How many samples were given fields.

    Raises:
        ValueError: positions are not known, or there are fewer samples than images were measured.
        ImportError: fiftyone is not installed.
    """
    labels = require("fiftyone", purpose="fields of FiftyOne's samples")
    if report.images.position is None:
        raise ValueError(
            "samples: expected a report that knows each image's place in its data set; measure with a loader that does "
            "not shuffle"
        )
    rows = {int(position): row for row, position in enumerate(report.images.position)}
    heatmaps = _heatmaps(report)
    written = 0
    for position, sample in enumerate(_autosaved(samples)):
        row = rows.get(position)
        if row is None:
            continue
        for name, value in _fields(report, labels, row).items():
            sample[f"{field}_{name}"] = value
        for name, values in heatmaps.get(int(report.images.id[row]), {}).items():
            sample[f"{field}_heatmap_{name}"] = labels.Heatmap(map=values, range=[-1, 1])
        written += 1
    if written < len(rows):
        raise ValueError(
            f"samples: expected one for each image of the data set that was measured, at least {max(rows) + 1}, got "
            f"fewer: {len(rows) - written:,} of {len(rows):,} images have none"
        )
    return written


def _autosaved(samples: Any) -> Iterator[Any]:
    """Samples of a dataset or view are saved as they are passed; samples in no dataset have nowhere to be saved."""
    if hasattr(samples, "iter_samples"):
        yield from samples.iter_samples(autosave=True)
        return
    for sample in samples:
        yield sample
        if sample.in_dataset:
            sample.save()


def _fields(report: Measurement, labels: Any, row: int) -> dict[str, Any]:
    """Fields of one image; what is not defined for it is left out."""
    images = report.images
    fields: dict[str, Any] = {}
    for variant in images.variants:
        if images.prediction[variant][row] >= 0:
            fields[variant] = _classification(report, labels, variant, row)
    hurt = was_hurt(report)
    if hurt is not None:
        fields["hurt"] = bool(hurt[row])
    for variant, cosine in images.cosine.items():
        fields[f"cosine_{variant}"] = float(cosine[row])
    for name, score in images.scores.items():
        fields[_field_name(name)] = float(score[row])
    return {name: value for name, value in fields.items() if not (isinstance(value, float) and np.isnan(value))}


def _classification(report: Measurement, labels: Any, variant: str, row: int) -> Any:
    images = report.images
    if images.targets is None:
        answer = class_label(report, int(images.prediction[variant][row]))
        return labels.Classification(label=answer, confidence=float(images.confidence[variant][row]))
    answered = np.flatnonzero(images.label_answers(variant)[row])
    odds = images.log_odds[variant][row]
    shares = [float(1 / (1 + np.exp(-odds[label]))) for label in answered]
    return labels.Classifications(
        classifications=[
            labels.Classification(label=class_label(report, int(label)), confidence=share)
            for label, share in zip(answered, shares, strict=True)
        ]
    )


def _heatmaps(report: Measurement) -> dict[int, dict[str, Any]]:
    """Values in [-1, 1] by image and attribution, of the examples that a report keeps."""
    return {
        example.id: {_field_name(name): unpacked_heatmap(packed) for name, packed in example.heatmaps.items()}
        for example in report.examples
    }


def _field_name(name: str) -> str:
    """A name that may be a field's: letters, digits and underscores."""
    return re.sub(r"\W", "_", name)
