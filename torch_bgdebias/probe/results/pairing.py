"""Which images two measurements have in common, and whether their settings are comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.measurement import Measurement

__all__ = ["differing_settings", "incomparable_scores", "matched_images", "nothing_in_common"]

#: settings that may differ between two measurements that are compared: they do not change what is asked of a model
_FREE = frozenset(
    {
        "attributions",
        "batch",
        "confidence",
        "device",
        "embedding_layer",
        "epoch",
        "groups",
        "guessed_size",
        "images_are_known_by",
        "images_enter",
        "intervals_count",
        "labels",
        "n_resamples",
        "object_edge_share",
        "object_share",
        "outputs",
        "processes",
        "score_settings",
        "scores",
        "variants",
    }
)


def nothing_in_common(first: Measurement, later: Measurement) -> str:
    """What to say of two measurements without an image in common, and why, where their settings tell."""
    text = f"{later.model} against {first.model}: no image in common, so the change cannot be tested"
    identities = [str(report.settings.get("images_are_known_by", "")) for report in (first, later)]
    if not all(identities):
        return text
    if identities[0] == identities[1]:
        return (
            f"{text}; both know an image by {identities[0]}, so an image with another mask, label or size counts as "
            "another one (ids= in Python knows images by names of your own)"
        )
    return (
        f"{text}; {first.model} was measured with images known by {identities[0]}, {later.model} by {identities[1]}: "
        "measure both in the same way, with bgdebias probe or in Python on a data set that has image_id(index)"
    )


def matched_images(first: ImageResults, second: ImageResults) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of the images that both have, in the same order; ``None`` without any.

    An image is known by its ``id`` and its label. The n-th copy of an image that occurs several times is paired with
    the n-th copy of the other measurement. Places in a loader say nothing about what an image shows and are not used.
    """
    widths = [None if images.targets is None else images.targets.shape[1] for images in (first, second)]
    if widths[0] != widths[1]:  # classes and label sets are numbered differently
        return None
    rows_of = {key: row for row, key in enumerate(_keys(second))}
    pairs = [(row, rows_of[key]) for row, key in enumerate(_keys(first)) if key in rows_of]
    if not pairs:
        return None
    first_rows, second_rows = zip(*pairs, strict=True)
    return np.array(first_rows, np.int64), np.array(second_rows, np.int64)


def differing_settings(
    first: Measurement, second: Measurement, rows: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> list[str]:
    """What was not the same in two measurements although it should be to compare them, in words.

    Args:
        first: one of them.
        second: the other one.
        rows: of the images that both have, from `matched_images`.
    """
    names = [n for n in {**first.settings, **second.settings} if n not in _FREE]
    if not (first.settings.get("attributions") and second.settings.get("attributions")):
        names = [n for n in names if n != "explained_class"]
    pairs = {n: (first.settings.get(n), second.settings.get(n)) for n in names}
    differing = [
        f"{_setting_title(n)}: {_spell_value(a)} and {_spell_value(b)}" for n, (a, b) in pairs.items() if a != b
    ]
    first_names, second_names = ({c.label: c.name for c in measurement.per_class} for measurement in (first, second))
    if names_differ := [
        label for label in first_names if label in second_names and first_names[label] != second_names[label]
    ]:
        label = names_differ[0]
        differing.append(
            f"names of {len(names_differ)} classes, such as {first_names[label]} and {second_names[label]} for {label}"
        )
    for variant, first_labels in first.images.background_label.items():
        if variant in second.images.background_label:
            second_labels = second.images.background_label[variant][rows[1]]
            n_changed = int((first_labels[rows[0]] != second_labels).sum())
            if n_changed:
                differing.append(
                    f"{variant} has backgrounds of other classes for {n_changed} of {len(second_labels)} images"
                )
    return differing


def incomparable_scores(first: Measurement, second: Measurement) -> list[str]:
    """Scores that both have, measured in ways that differ, such as against banks of other sizes."""
    first_settings, second_settings = (
        measurement.settings.get("score_settings") or {} for measurement in (first, second)
    )
    shared = [name for name in first.scores if name in second.scores]
    return [name for name in shared if first_settings.get(name) != second_settings.get(name)]


def _setting_title(setting: str) -> str:
    return {"mean": "preprocessing (mean)", "std": "preprocessing (std)", "preprocess": "preprocessing"}.get(
        setting, setting.replace("_", " ")
    )


def _spell_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_spell_value(v) for v in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _keys(images: ImageResults) -> list[tuple[int, int, int]]:
    """(id, label, how many rows before have the same two) of every row."""
    copies: dict[tuple[int, int], int] = {}
    keys = []
    for id, label in zip(images.id.tolist(), images.label.tolist(), strict=True):
        copy = copies.get((id, label), 0)
        copies[id, label] = copy + 1
        keys.append((id, label, copy))
    return keys
