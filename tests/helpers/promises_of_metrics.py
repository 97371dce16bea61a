"""Metrics, statistics, intervals and certificates on drawn tensors and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from any_tensors import Drawn
from promises import promise
from torch import nn

from torch_bgdebias import metrics, probe
from torch_bgdebias.metrics import ConceptIoU, PixelRatio

COUNTS = (6, 1, 0, 2, 40)


def averaged(t: Drawn) -> dict[str, Any]:
    return {"num_classes": 3, "average": t.choose(("micro", "macro", "none"))}


@promise("metrics.pixel_ratio", undefined=(r"^result$",))
def ratio(t: Drawn) -> Any:
    channels = t.choose((3, 1))
    return metrics.pixel_ratio(t.floats(t.batch, channels, *t.size), t.mask(), t.void())


@promise("metrics.PixelRatio", undefined=("result",))
def ratio_metric(t: Drawn) -> Any:
    metric = PixelRatio(**averaged(t), keep_values=t.choose((False, True)))
    metric.update(t.image(), t.mask(), t.labels(), valid=t.choose((None, t.flags(t.batch))), void=t.void())
    return metric.compute()


@promise("metrics.ConceptIoU", undefined=("result",))
def iou_metric(t: Drawn) -> Any:
    metric = ConceptIoU(**averaged(t))
    metric.update(t.floats(t.batch, 1, *t.size), t.mask(), t.labels(), void=t.void())
    return metric.compute()


def answers(t: Drawn) -> torch.Tensor:
    return t.choose((t.labels(), t.floats(t.batch, 3)))


@promise("metrics.background_gap", "metrics.BackgroundGap", undefined=("result",))
def gap(t: Drawn) -> Any:
    same, rand, target = answers(t), answers(t), t.labels()
    valid = t.choose(({}, {"valid_same": t.flags(t.batch), "valid_rand": t.flags(t.batch)}))
    options = averaged(t)
    metric = metrics.BackgroundGap(**options)
    metric.update(same, rand, target, **valid)
    return metrics.background_gap(same, rand, target, **valid, **options), metric.compute()


@promise("metrics.decision_consistency", "metrics.DecisionConsistency", undefined=("result",))
def decisions(t: Drawn) -> Any:
    original, changed, target, valid = answers(t), answers(t), t.labels(), t.choose((None, t.flags(t.batch)))
    metric = metrics.DecisionConsistency(**averaged(t))
    metric.update(original, changed, target, valid=valid)
    return metrics.decision_consistency(original, changed, target, valid=valid, **averaged(t)), metric.compute()


@promise("metrics.feature_consistency", "metrics.FeatureConsistency", undefined=("result",))
def features(t: Drawn) -> Any:
    original, changed, target = t.floats(t.batch, 5), t.floats(t.batch, 5), t.labels()
    valid = t.choose((None, t.flags(t.batch)))
    metric = metrics.FeatureConsistency(**averaged(t))
    metric.update(original, changed, target, valid=valid)
    return metrics.feature_consistency(original, changed, target, valid=valid, **averaged(t)), metric.compute()


class Brightness(nn.Module):
    """Two classes by a channel's mean."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))[:, :2]


@promise("metrics.adversarial_background_accuracy", "metrics.AdversarialBackgroundAccuracy",
         undefined=("accuracy", "1$"))  # fmt: skip
def adversarial(t: Drawn) -> Any:
    image, mask, label, void = t.image(), t.mask(), t.labels(2), t.void()
    uint8 = torch.randint(0, 256, (3, 3, *t.size), generator=t.generator, dtype=torch.uint8)
    bank = t.choose((uint8, t.floats(3, 3, *t.size).detach()))
    metric = metrics.AdversarialBackgroundAccuracy(bank, num_classes=2)
    metric.update(Brightness(), image, mask, label, void=void)
    return metrics.adversarial_background_accuracy(Brightness(), image, mask, label, bank, void=void), metric.compute()


def binary(t: Drawn, *shape: int) -> np.ndarray:
    return t.flags(*shape).numpy()


def groups_of(t: Drawn, count: int) -> Any:
    return t.choose((None, np.arange(count) // 2, ["a"] * count, np.arange(count)))


UNDEFINED = (r"\.(value|low|high|p_value|estimate|error|difference|accuracy|at_least)", "result")
STATISTICS = {"words": ("values",), "undefined": UNDEFINED}


@promise("metrics.auc_interval", **STATISTICS)
def area(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    method = t.choose(("delong", "logit")) if t.choose((False, True)) else "delong"
    return metrics.auc_interval(t.numbers(count), binary(t, count), groups=groups_of(t, count), method=method)


@promise("metrics.auc_difference", **STATISTICS)
def areas(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.auc_difference(t.numbers(count), t.numbers(count), binary(t, count), groups=groups_of(t, count))


@promise("metrics.balanced_accuracy", **STATISTICS)
def balanced(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.balanced_accuracy(t.labels(rows=count), t.labels(rows=count), groups=groups_of(t, count))


@promise("metrics.confusion_matrix")
def confusion(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.confusion_matrix(t.labels(rows=count), t.labels(rows=count), 3)


@promise("metrics.f1_score", **STATISTICS)
def f1(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.f1_score(binary(t, count), binary(t, count), groups=groups_of(t, count))


@promise("metrics.sensitivity_at", **STATISTICS)
def sensitivity(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.sensitivity_at(t.numbers(count), binary(t, count), specificity=t.choose((0.95, 0.5)))


@promise("metrics.calibration_error", **STATISTICS)
def calibration(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.calibration_error(t.numbers(count, signed=False), binary(t, count), bins=t.choose((15, 1)))


@promise("metrics.certified_accuracy", **STATISTICS)
def certificate(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    right = binary(t, count, t.choose((1, 4)))
    return metrics.certified_accuracy(right, groups=groups_of(t, count), confidence=t.choose((0.95, 0.5, 0.999)))


@promise("metrics.mean_interval", "metrics.bootstrap_mean", **STATISTICS)
def means(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    values, groups = t.numbers(count), groups_of(t, count)
    return (
        metrics.mean_interval(values, groups=groups),
        metrics.bootstrap_mean(values, groups=groups, n_resamples=20),
    )


@promise("metrics.mean_difference_interval", "metrics.bootstrap_mean_difference", **STATISTICS)
def differences(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    first, second, groups = t.numbers(count), t.numbers(count), groups_of(t, count)
    return (
        metrics.mean_difference_interval(first, second, groups=groups),
        metrics.bootstrap_mean_difference(first, second, groups=groups, n_resamples=20),
    )


@promise("metrics.paired_permutation_test", **STATISTICS)
def permutation(t: Drawn) -> Any:
    count = t.choose(COUNTS)
    return metrics.paired_permutation_test(
        t.numbers(count), t.numbers(count), groups=groups_of(t, count), n_resamples=50
    )


@promise("metrics.correct_p_values")
def corrected(t: Drawn) -> Any:
    return metrics.correct_p_values(t.numbers(t.choose(COUNTS), signed=False), t.choose(("holm", "benjamini-hochberg")))


@promise("metrics.not_padding")
def padding(t: Drawn) -> Any:
    sampler = torch.utils.data.DistributedSampler(range(t.choose((7, 8))), num_replicas=3, rank=2, shuffle=False)
    return metrics.not_padding(sampler, t.choose((0, 1, 2)), t.batch)


@promise("probe.ImageResults", "probe.summarise", words=("label", "prediction", "confidence", "cosine", "original"),
         undefined=("result",))  # fmt: skip
def summary(t: Drawn) -> Any:
    count = t.choose((6, 1, 2))
    names = ("original", "mixed_same", "mixed_rand")
    images = probe.ImageResults(
        np.arange(count).astype(np.uint64),
        t.labels(3, rows=count).long().numpy(),
        {name: t.labels(3, rows=count).long().numpy() for name in names},
        {name: t.floats(count, signed=False).detach().float().numpy() for name in names},
    )
    return probe.summarise(images, model="a", class_names=["a", "b", "c"])
