"""One logit, label sets, shares of classes and no labels: what is measured, against what is known and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_targets import LABELS, SetReader, label_sets, set_images, set_loader
from probe_toy import cheat, honest, toy_loader
from sklearn.metrics import accuracy_score, hamming_loss, recall_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.probe import BackgroundBiasReport, compare_models, evaluate_background_bias

N = 60
TARGETS = label_sets(N)
NAMES = ["cat", "dog", "cow"]
MIXED = ("mixed_same", "mixed_rand")


def measured(*, corner: bool, **options) -> BackgroundBiasReport:
    model = SetReader(corner=corner)
    return evaluate_background_bias(model, set_loader(TARGETS), task="multilabel", class_names=NAMES, **options)


@pytest.fixture(scope="module")
def reader_of_backgrounds() -> BackgroundBiasReport:
    return measured(corner=True, name="corner", examples=3)


@pytest.fixture(scope="module")
def reader_of_objects() -> BackgroundBiasReport:
    return measured(corner=False, name="middle", examples=3)


def test_label_sets_of_a_model_that_reads_the_background(reader_of_backgrounds: BackgroundBiasReport) -> None:
    report, images = reader_of_backgrounds, reader_of_backgrounds.images
    # what it answers is what its background shows, label by label
    shown = images.background_label["mixed_rand"][:, None] >> np.arange(LABELS) & 1
    np.testing.assert_array_equal(images.label_answers("mixed_rand"), shown == 1)
    np.testing.assert_array_equal(images.background_label["mixed_same"], images.label)
    right = shown == images.targets
    assert report.variants["original"].accuracy.value == report.variants["mixed_same"].accuracy.value == 1
    assert report.variants["mixed_rand"].accuracy.value == pytest.approx(right.mean())
    assert report.variants["mixed_rand"].exact_match.value == pytest.approx(right.all(1).mean())
    assert report.variants["mixed_rand"].decision_consistency.value == pytest.approx(right.mean())
    assert report.bg_gap.value == pytest.approx(1 - right.mean())
    assert [c.bg_gap.value for c in report.per_class] == pytest.approx((1 - right.mean(0)).tolist())
    assert report.bg_gap.value == pytest.approx(np.mean([c.bg_gap.value for c in report.per_class]))
    assert [(c.name, c.n) for c in report.per_class] == list(zip(NAMES, images.targets.sum(0).tolist(), strict=True))
    assert all(c.bg_gap.low > 0 and c.gap_p < 0.001 and c.bg_gap.n == N for c in report.per_class)
    assert report.counts["labels"] == LABELS


def test_label_sets_against_scikit_learn(reader_of_backgrounds: BackgroundBiasReport) -> None:
    images = reader_of_backgrounds.images
    for name, result in reader_of_backgrounds.variants.items():
        answers = images.label_answers(name).astype(int)
        assert result.exact_match.value == pytest.approx(accuracy_score(images.targets, answers))
        assert result.accuracy.value == pytest.approx(1 - hamming_loss(images.targets, answers))
        for label, row in enumerate(reader_of_backgrounds.per_class):
            assert row.accuracy[name].value == pytest.approx(
                accuracy_score(images.targets[:, label], answers[:, label])
            )


def test_a_model_that_reads_objects_has_no_gap_in_any_label(reader_of_objects: BackgroundBiasReport) -> None:
    assert reader_of_objects.bg_gap.value == 0
    assert reader_of_objects.bg_gap.low < 0 < reader_of_objects.bg_gap.high
    assert all(c.bg_gap.value == 0 and c.gap_p == 1 for c in reader_of_objects.per_class)
    assert "may be chance" in reader_of_objects.summary()


def test_one_hot_label_sets_get_the_same_pictures_as_classes() -> None:
    """The set with one label l is class l: every image gets the very same background."""
    label = torch.arange(40) % 4
    hot = torch.eye(4)[label].long()
    image, mask = set_images(hot[:, :3])
    ids = torch.arange(40)

    def loader(target):
        spec = BatchSpec(image="x", label="y", mask="m")
        rows = [{"x": image[i], "y": target[i], "m": mask[i], "id": int(ids[i])} for i in range(40)]
        return {"loader": DataLoader(rows, batch_size=9), "spec": spec, "ids": "id", "variants": MIXED}

    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4))
    one = evaluate_background_bias(model, **loader(label))
    sets = evaluate_background_bias(model, **loader(hot), task="multilabel")
    order = np.argsort(sets.images.id)
    for name in MIXED:
        np.testing.assert_array_equal(2 ** one.images.background_label[name], sets.images.background_label[name][order])
        np.testing.assert_allclose(one.images.cosine[name], sets.images.cosine[name][order], rtol=1e-5)


def test_label_sets_are_compared(reader_of_backgrounds, reader_of_objects, tmp_path) -> None:
    (comparison,) = compare_models([reader_of_backgrounds, reader_of_objects])
    assert comparison.n == N
    gap = reader_of_backgrounds.bg_gap.value
    assert comparison.figures["bg_gap"].difference.value == pytest.approx(-gap)
    assert comparison.figures["bg_gap"].exact
    assert comparison.figures["exact_match/mixed_rand"].corrected < 0.001
    assert [c.changes["bg_gap"].difference.value for c in comparison.per_class] == pytest.approx(
        [-c.bg_gap.value for c in reader_of_backgrounds.per_class]
    )
    assert not comparison.differing
    page = reader_of_backgrounds.to_html(tmp_path / "r.html", others=[reader_of_objects]).read_text(encoding="utf-8")
    for part in ("Label by label", "All labels right", "labels of test images", "worst label", "Worst images: corner"):
        assert part in page
    again = BackgroundBiasReport.from_dict(reader_of_backgrounds.to_dict())
    assert again.to_dict() == reader_of_backgrounds.to_dict()
    classes = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED)
    assert compare_models([reader_of_backgrounds, classes]) == [None]


def test_examples_of_label_sets_are_called_by_their_labels(
    reader_of_backgrounds: BackgroundBiasReport, tmp_path
) -> None:
    page = reader_of_backgrounds.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    example = reader_of_backgrounds.examples[0]
    row = int(np.flatnonzero(reader_of_backgrounds.images.id == example.id)[0])
    names = " + ".join(
        name for name, there in zip(NAMES, reader_of_backgrounds.images.targets[row], strict=True) if there
    )
    assert f">{names or 'none'}<" in page.replace("\n", "")
    assert str(2**62) not in page


@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_logit(sigmoid: bool) -> None:
    """Right above 0 of the logit, which is 0.5 of its sigmoid, overall and in each class."""
    label = TARGETS[:, 0]
    model = SetReader(corner=True, outputs=1, sigmoid=sigmoid)
    loader = set_loader(TARGETS, label.float()[:, None])
    report = evaluate_background_bias(model, loader, task="binary", class_names=["without", "with"])
    images = report.images
    with torch.no_grad():
        image = set_images(TARGETS)[0]
        logits = model(image)[:, 0].logit() if sigmoid else model(image)[:, 0]
    rows = np.argsort(images.position)
    np.testing.assert_array_equal(images.prediction["original"][rows], (logits > 0).long())
    np.testing.assert_allclose(images.log_odds["original"][rows, 1], logits, rtol=1e-4, atol=1e-4)
    assert report.variants["mixed_rand"].accuracy.value == accuracy_score(images.label, images.prediction["mixed_rand"])
    recalls = recall_score(images.label, images.prediction["mixed_rand"], average=None)
    assert [c.accuracy["mixed_rand"].value for c in report.per_class] == pytest.approx(recalls.tolist())
    assert report.bg_gap.value > 0.3
    assert report.settings["outputs"] == ("probabilities" if sigmoid else "logits")


def test_shares_of_classes_are_scored_by_the_largest() -> None:
    hard = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED)
    data = toy_loader().dataset
    soft = 0.9 * torch.eye(4)[data.labels] + 0.025
    loader = DataLoader(TensorDataset(data.images, soft, data.masks), batch_size=7)
    with pytest.warns(UserWarning, match="label: shares of classes are scored by the largest one"):
        report = evaluate_background_bias(cheat(), loader, variants=MIXED)
    assert report.to_dict()["images"] == hard.to_dict()["images"]
    assert report.settings["labels"] == "the largest share of several classes"
    assert hard.settings["labels"] == "one class an image"


def test_no_labels() -> None:
    """What needs none is as with labels: decisions kept and features; what needs one is not there."""
    loader = [(image, mask) for image, _, mask in toy_loader()]
    spec = BatchSpec(label=None, mask=1)
    report = evaluate_background_bias(cheat(), loader, spec=spec, examples=2)
    assert list(report.variants) == ["original", "only_fg", "only_bg_b", "only_bg_t", "no_fg", "mixed_rand"]
    unchanged = report.images.prediction["mixed_rand"] == report.images.prediction["original"]
    assert report.variants["mixed_rand"].decision_consistency.value == pytest.approx(unchanged.mean())
    assert 0 < unchanged.mean() < 1
    assert np.isnan(report.variants["original"].accuracy.value)
    assert (report.bg_gap, report.per_class, report.worst_class) == (None, [], None)
    sure = evaluate_background_bias(honest(), loader, spec=spec)
    assert sure.variants["mixed_rand"].decision_consistency.value == 1
    (comparison,) = compare_models([report, sure])
    assert comparison.figures["decision_consistency/mixed_rand"].corrected < 0.001
    assert "accuracy/original" not in comparison.figures
    assert "accuracy -" in report.summary()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"task": "multilabel", "variants": ["mixed_next"]},
            ValueError,
            "'mixed_next', but an image of task='multilabel'",
        ),
        ({"task": "multilabel", "explain": "label"}, ValueError, "explain: expected 'predicted', got 'label'"),
        ({"task": "multilabel", "probabilities": False}, ValueError, "probabilities: expected True"),
        (
            {"spec": BatchSpec(label=None), "variants": ["mixed_same"]},
            ValueError,
            "'mixed_same', but images have no label",
        ),
        (
            {"spec": BatchSpec(label=None), "task": "multilabel"},
            ValueError,
            "label: expected label sets in every batch",
        ),
        (
            {"task": "multilabel", "logits": lambda out: out[:, :2]},
            ValueError,
            "label: expected 2 labels an image, one an",
        ),
        ({"task": "multilabel", "logits": lambda out: out[:, 0]}, ValueError, r"expected logits \(7, L\), one a label"),
        ({}, ValueError, "for label sets of 0 and 1 pass task='multilabel'"),
        (
            {"task": "multilabel", "backgrounds": torch.rand(4, 3, 8, 8), "background_labels": torch.arange(4)},
            ValueError,
            r"background_labels: expected label sets \(4, L\) of 0 and 1",
        ),
    ],
)
def test_what_needs_one_class_is_refused_by_name(options, error, match) -> None:
    with pytest.raises(error, match=match):
        evaluate_background_bias(SetReader(corner=True), set_loader(TARGETS), **options)


def test_a_banks_classes_say_nothing_about_label_sets() -> None:
    bank = BackgroundBank(torch.rand(6, 3, 10, 10), labels=torch.arange(6) % 3)
    report = evaluate_background_bias(
        SetReader(corner=True), set_loader(TARGETS), task="multilabel", backgrounds=bank, variants=MIXED
    )
    assert report.variants["mixed_same"].accuracy.n == 0
    assert report.variants["mixed_rand"].accuracy.n == N
    assert report.counts["without_partner_mixed_same"] == N
    pool = torch.rand(8, 3, 10, 10), TARGETS[:8]
    report = evaluate_background_bias(
        SetReader(corner=True), set_loader(TARGETS), task="multilabel", backgrounds=pool[0], background_labels=pool[1]
    )
    assert 0 < report.variants["mixed_same"].accuracy.n < N


def test_attributions_of_label_sets_explain_the_surest_label() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, LABELS))
    seen: list[torch.Tensor] = []

    def note(model: nn.Module, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target.clone())
        return image.abs().sum(1, keepdim=True)

    options = {"task": "multilabel", "variants": MIXED, "examples": 2}
    report = evaluate_background_bias(model, set_loader(TARGETS), attributions={"mine": note}, **options)
    rows = np.argsort(report.images.position)
    np.testing.assert_array_equal(torch.cat(seen), report.images.log_odds["original"].argmax(1)[rows])
    maps = evaluate_background_bias(model, set_loader(TARGETS), attributions=["grad_cam"], **options)
    assert maps.scores["pixel_ratio/grad_cam"].mean.n > 0
    assert set(maps.examples[0].heatmaps) == {"grad_cam"}


def test_scores_get_the_label_sets() -> None:
    def labels_there(model, image, mask, label):
        return label.sum(1).float()

    report = evaluate_background_bias(
        SetReader(corner=True), set_loader(TARGETS), task="multilabel", variants=MIXED, scores={"labels": labels_there}
    )
    np.testing.assert_array_equal(report.images.scores["labels"], report.images.targets.sum(1))
