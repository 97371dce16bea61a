"""AUC, sensitivity, F1, calibration and confusion matrices of a report: scikit-learn's and torchmetrics' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probe_targets import SetReader, label_sets, set_loader
from probe_toy import cheat, toy_loader
from sklearn import metrics as sk
from torch import nn
from torchmetrics.classification import MulticlassCalibrationError, MultilabelAUROC

from torch_bgdebias.metrics import auc_difference
from torch_bgdebias.probe import BackgroundBiasReport, compare_models, evaluate_background_bias
from torch_bgdebias.probe.results.images import ImageResults

MIXED = ("only_fg", "mixed_same", "mixed_rand")


class Soft(nn.Module):
    """Logits from the whole picture: right more often than not, sure of nothing."""

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(300, outputs)

    def forward(self, image):
        return 3 * self.head(image.flatten(1))


def report_of(model: nn.Module, loader, **options) -> BackgroundBiasReport:
    return evaluate_background_bias(model, loader, variants=MIXED, **options)


@pytest.fixture(scope="module")
def classes() -> BackgroundBiasReport:
    return report_of(Soft(4, 0), toy_loader(80), name="one")


@pytest.fixture(scope="module")
def sets() -> BackgroundBiasReport:
    return report_of(Soft(3, 1), set_loader(label_sets(90)), task="multilabel", name="sets")


def probabilities(images: ImageResults, variant: str) -> np.ndarray:
    return 1 / (1 + np.exp(-images.log_odds[variant].astype(np.float64)))


@pytest.mark.parametrize("variant", ["original", *MIXED])
def test_classes_against_scikit_learn(classes: BackgroundBiasReport, variant: str) -> None:
    images, row = classes.images, classes.performance[variant]
    shares, label, said = probabilities(images, variant), images.label, images.prediction[variant]
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert row.auc.value == pytest.approx(sk.roc_auc_score(label, shares, multi_class="ovr"), abs=1e-9)
    assert row.balanced_accuracy.value == pytest.approx(sk.balanced_accuracy_score(label, said))
    assert row.f1.value == pytest.approx(sk.f1_score(label, said, average="macro", labels=range(4)))
    np.testing.assert_array_equal(row.confusion, sk.confusion_matrix(label, said, labels=range(4)))
    expected = MulticlassCalibrationError(4, n_bins=15, norm="l1")(torch.from_numpy(shares), torch.from_numpy(label))
    assert row.calibration_error == pytest.approx(float(expected), abs=1e-5)
    for part in row.labels:
        there, answered = label == part.label, said == part.label
        assert part.positives == there.sum()
        assert part.auc.value == pytest.approx(sk.roc_auc_score(there, shares[:, part.label]))
        assert part.sensitivity.value == pytest.approx(sk.recall_score(there, answered))
        assert part.specificity.value == pytest.approx(sk.recall_score(~there, ~answered))
        assert part.balanced_accuracy.value == pytest.approx(sk.balanced_accuracy_score(there, answered))
        assert part.f1.value == pytest.approx(sk.f1_score(there, answered, zero_division=0))
        false, true, _ = sk.roc_curve(there, shares[:, part.label], drop_intermediate=False)
        assert part.sensitivity_at.value == pytest.approx(true[false <= 0.05 + 1e-12].max())


@pytest.mark.parametrize("variant", ["original", "mixed_rand"])
def test_label_sets_against_scikit_learn_and_torchmetrics(sets: BackgroundBiasReport, variant: str) -> None:
    images, row = sets.images, sets.performance[variant]
    shares, answers = probabilities(images, variant), images.label_answers(variant)
    assert row.auc.value == pytest.approx(sk.roc_auc_score(images.targets, shares, average="macro"), abs=1e-9)
    metric = MultilabelAUROC(3, average="macro")(torch.from_numpy(shares), torch.from_numpy(images.targets).long())
    assert row.auc.value == pytest.approx(float(metric), abs=1e-5)
    each = [sk.balanced_accuracy_score(images.targets[:, k], answers[:, k]) for k in range(3)]
    assert [part.balanced_accuracy.value for part in row.labels] == pytest.approx(each)
    assert row.balanced_accuracy.value == pytest.approx(np.mean(each))
    assert row.f1.value == pytest.approx(sk.f1_score(images.targets, answers, average="macro"))
    assert row.confusion == []


def test_one_logit_has_the_area_of_class_1() -> None:
    targets = label_sets(60)
    report = report_of(SetReader(corner=True, outputs=1), set_loader(targets, targets[:, 0]), task="binary")
    images, row = report.images, report.performance["mixed_rand"]
    expected = sk.roc_auc_score(images.label, images.log_odds["mixed_rand"][:, 1])
    assert row.auc.value == pytest.approx(expected)
    assert [part.auc.value for part in row.labels] == pytest.approx([expected, expected])
    gap = report.auc_gap
    assert gap.difference.value == pytest.approx(1 - expected)
    assert gap.p_value < 0.001
    assert "AUC on own less random backgrounds" in report.summary()


def test_two_models_areas_are_compared_by_delongs_test(classes: BackgroundBiasReport) -> None:
    other = report_of(Soft(4, 5), toy_loader(80), name="other")
    (comparison,) = compare_models([classes, other])
    label = classes.images.label
    for variant in ("original", *MIXED):
        change = comparison.figures[f"auc/{variant}"]
        test = auc_difference(other.images.log_odds[variant], classes.images.log_odds[variant], label)
        assert (change.difference.value, change.p_value) == (test.interval.value, test.p_value)
        assert change.corrected >= change.p_value
    one = comparison.per_class[2].changes["auc/mixed_rand"].difference.value
    areas = [r.performance["mixed_rand"].labels[2].auc.value for r in (classes, other)]
    assert one == pytest.approx(areas[1] - areas[0])


def test_numbers_are_written_and_computed_again(classes: BackgroundBiasReport, sets: BackgroundBiasReport) -> None:
    for report in (classes, sets):
        data = report.to_dict()
        assert data["performance"]["original"]["auc"]["value"] == report.performance["original"].auc.value
        assert data["auc_gap"]["p_value"] == report.auc_gap.p_value
        assert BackgroundBiasReport.from_dict(data).to_dict() == data


def test_log_odds_are_kept_of_few_classes_or_on_demand() -> None:
    def images(outputs: int, **options) -> ImageResults:
        return report_of(Soft(outputs, 0), toy_loader(), **options).images

    assert set(images(20).log_odds) == {"original", *MIXED}
    assert images(21).log_odds == {}
    assert images(21, probabilities=True).log_odds["original"].shape == (40, 21)
    assert images(4, probabilities=False).log_odds == {}
    bare = report_of(cheat(), toy_loader(), probabilities=False)
    assert (bare.performance, bare.auc_gap) == ({}, None)
    assert "AUC" not in bare.summary()


def test_a_class_that_is_absent_has_no_row_and_no_area() -> None:
    row = report_of(Soft(6, 2), toy_loader()).performance["original"]  # the data has classes 0 to 3
    assert [part.label for part in row.labels] == [0, 1, 2, 3]
    assert math.isfinite(row.auc.value)
    assert np.array(row.confusion).shape == (6, 6)
