"""Names of an image's label and of a model's answer: one class, a set of labels, or unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.images import Example
from torch_bgdebias.probe.results.measurement import Measurement

__all__ = ["answer_is_right", "answer_name", "class_label", "label_name", "set_label"]

_SHOWN = 3  # labels of a set that are named


def label_name(measurement: Measurement, example: Example) -> str:
    """What an example shows; ``no label`` where that is not known."""
    targets = measurement.images.targets
    if targets is not None:
        return set_label(measurement, targets[_row(measurement, example)] > 0)
    return "no label" if example.label < 0 else class_label(measurement, example.label)


def answer_name(measurement: Measurement, example: Example, variant: str) -> str:
    """What the model said of an example in a variant."""
    if measurement.images.targets is not None:
        return set_label(measurement, measurement.images.label_answers(variant)[_row(measurement, example)])
    return class_label(measurement, example.prediction[variant])


def answer_is_right(example: Example, variant: str) -> bool | None:
    """Whether that is right (of label sets: all of it); ``None`` where the label is not known."""
    return None if example.label < 0 else example.prediction[variant] == example.label


def class_label(measurement: Measurement, label: int) -> str:
    """A class's name, or its number where there is none."""
    return measurement.class_names[label] if 0 <= label < len(measurement.class_names) else str(label)


def set_label(measurement: Measurement, in_set: NDArray[np.bool_]) -> str:
    """The first names of a set of labels, (L,) true where a label is in it."""
    names = [class_label(measurement, int(label)) for label in np.flatnonzero(in_set)]
    if not names:
        return "none"
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return " + ".join(names[:_SHOWN] + more)


def _row(measurement: Measurement, example: Example) -> int:
    return int(np.flatnonzero(measurement.images.id == np.uint64(example.id))[0])
