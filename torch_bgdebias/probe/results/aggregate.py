"""From the results of every image to a report: accuracies, gap, consistencies, intervals, tests between two reports."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torch_bgdebias._version import __version__
from torch_bgdebias.metrics.statistics import (
    Floats,
    Interval,
    PermutationTest,
    bootstrap_mean,
    bootstrap_mean_difference,
    paired_permutation_test,
)
from torch_bgdebias.probe.results.measurement import (
    BackgroundBiasReport,
    ClassResult,
    Estimate,
    Example,
    ImageResults,
    ScoreResult,
    VariantResult,
)

__all__ = ["compare_reports", "matched_images", "paired_columns", "summarise"]


def summarise(
    images: ImageResults,
    *,
    model: str,
    class_names: Sequence[str],
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    examples: Sequence[Example] = (),
) -> BackgroundBiasReport:
    """Compute a report from per-image results; also the way to have other intervals from a report that was kept.

    Args:
        images: per-image results, as in ``report.images``.
        model: the model's name.
        class_names: names of all K classes.
        confidence: of the intervals.
        n_resamples: bootstrap resamples.
        seed: of the bootstrap.
        counts: further counts to carry.
        settings: further settings to carry.
        examples: pictures to carry.

    Example:
        >>> import numpy as np
        >>> columns = {"original": np.array([0, 1]), "mixed_same": np.array([0, 1]), "mixed_rand": np.array([0, 0])}
        >>> sure = {name: np.ones(2, np.float32) for name in columns}
        >>> images = ImageResults(np.array([5, 9], np.uint64), np.array([0, 1]), columns, sure)
        >>> summarise(images, model="toy", class_names=["cat", "dog"]).bg_gap.value
        0.5
    """
    boot = {"confidence": confidence, "n_resamples": n_resamples, "seed": seed}
    columns = _columns(images)
    all_rows = np.ones(len(images), bool)
    variants = {name: _variant(images, columns, name, all_rows, boot) for name in images.variants}
    per_class = [_class(images, columns, int(label), class_names, boot) for label in np.unique(images.label)]
    scores = {
        name: ScoreResult(name, _mean(values, boot), int(np.isnan(values).sum()))
        for name, values in images.scores.items()
    }
    return BackgroundBiasReport(
        model=model,
        class_names=list(class_names),
        variants=variants,
        bg_gap=_gap(columns, all_rows, boot),
        per_class=per_class,
        images=images,
        scores=scores,
        counts={"images": len(images), "classes": len(per_class), **(counts or {})},
        settings={**(settings or {}), **boot},
        versions={
            "torch_bgdebias": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        examples=list(examples),
    )


def compare_reports(
    first: BackgroundBiasReport, second: BackgroundBiasReport, *, n_resamples: int = 9999, seed: int = 0
) -> dict[str, PermutationTest]:
    """Paired permutation tests between two models on the images that both reports have.

    Images are matched by content; where no image has a match (the models took other sizes or normalisation) by position
    in the loader, provided that labels agree there.

    Returns:
        A test per figure: ``accuracy/<variant>``, ``bg_gap``, ``decision_consistency/<variant>``,
        ``feature_consistency/<variant>``, ``<score>``; the difference is first minus second. Correct the p-values for
        their number with :func:`torch_bgdebias.metrics.correct_p_values`, or take
        :func:`torch_bgdebias.probe.compare_models`, which does so and adds intervals and classes.

    Raises:
        ValueError: the reports share no image.
    """
    rows = matched_images(first.images, second.images)
    if rows is None:
        raise ValueError("reports: expected results on the same images, got no image that both have")
    one, two = paired_columns(first.images), paired_columns(second.images)
    return {
        name: paired_permutation_test(one[name][rows[0]], two[name][rows[1]], n_resamples=n_resamples, seed=seed)
        for name in one
        if name in two
    }


def matched_images(first: ImageResults, second: ImageResults) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of the images that both have, in the same order: by content, else by position; ``None`` without any."""
    keys: list[tuple[NDArray[Any], NDArray[Any]]] = [(first.id, second.id)]
    if first.position is not None and second.position is not None:
        keys.append((first.position, second.position))
    for one, two in keys:
        _, a, b = np.intersect1d(one, two, return_indices=True)
        if len(a) and bool((first.label[a] == second.label[b]).all()):
            return a, b
    return None


def paired_columns(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure that is a mean over images, the BG-Gap first; NaN where it has none."""
    columns = _columns(images)
    if "accuracy/mixed_same" in columns and "accuracy/mixed_rand" in columns:
        columns = {"bg_gap": columns["accuracy/mixed_same"] - columns["accuracy/mixed_rand"], **columns}
    return columns


def _columns(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure, NaN where the image has none."""
    columns: dict[str, Floats] = {}
    for name in images.variants:
        valid = images.valid(name)
        columns[f"accuracy/{name}"] = np.where(valid, images.correct(name), np.nan)
        if name in images.background_label and "original" in images.prediction:
            kept = images.prediction[name] == images.prediction["original"]
            columns[f"decision_consistency/{name}"] = np.where(valid, kept, np.nan)
    for name, cosine in images.cosine.items():
        columns[f"feature_consistency/{name}"] = cosine.astype(np.float64)
    for name, score in images.scores.items():
        columns[name] = score.astype(np.float64)
    return columns


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high, interval.n)


def _mean(values: Any, boot: Mapping[str, Any]) -> Estimate:
    return _estimate(bootstrap_mean(values, **boot))


def _gap(columns: Mapping[str, Floats], rows: NDArray[np.bool_], boot: Mapping[str, Any]) -> Estimate | None:
    if "accuracy/mixed_same" not in columns or "accuracy/mixed_rand" not in columns:
        return None
    same, rand = columns["accuracy/mixed_same"][rows], columns["accuracy/mixed_rand"][rows]
    return _estimate(bootstrap_mean_difference(same, rand, **boot))


def _variant(
    images: ImageResults, columns: Mapping[str, Floats], name: str, rows: NDArray[np.bool_], boot: Mapping[str, Any]
) -> VariantResult:
    found = {
        what: _mean(columns[f"{what}/{name}"][rows], boot) if f"{what}/{name}" in columns else None
        for what in ("decision_consistency", "feature_consistency")
    }
    left_out = int((~images.valid(name)).sum())
    return VariantResult(name, _mean(columns[f"accuracy/{name}"][rows], boot), left_out, **found)


def _class(
    images: ImageResults, columns: Mapping[str, Floats], label: int, names: Sequence[str], boot: Mapping[str, Any]
) -> ClassResult:
    rows = np.asarray(images.label == label)

    def grouped(what: str) -> dict[str, Estimate]:
        start = f"{what}/"
        return {c.removeprefix(start): _mean(x[rows], boot) for c, x in columns.items() if c.startswith(start)}

    return ClassResult(
        label=label,
        name=names[label] if label < len(names) else str(label),
        n=int(rows.sum()),
        accuracy=grouped("accuracy"),
        bg_gap=_gap(columns, rows, boot),
        decision_consistency=grouped("decision_consistency"),
        feature_consistency=grouped("feature_consistency"),
        scores={name: _mean(columns[name][rows], boot) for name in images.scores},
    )
