"""What a cheating and an honest model must score, exactly; order and batches must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probe_toy import K, Reader, ToyImages, cheat, honest, toy_loader
from torch.utils.data import DataLoader

from torch_bgdebias.data import VARIANTS
from torch_bgdebias.probe import evaluate_background_bias

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_cheating_model_scores_what_its_backgrounds_say() -> None:
    report = evaluate_background_bias(cheat(), toy_loader())
    images = report.images
    assert list(report.variants) == ["original", *VARIANTS]
    assert all(r.n_left_out == 0 for r in report.variants.values())
    for name in MIXED:  # it answers the background's class, always
        np.testing.assert_array_equal(images.prediction[name], images.background_label[name])
    accuracy = {name: r.accuracy.value for name, r in report.variants.items()}
    assert accuracy["original"] == accuracy["mixed_same"] == accuracy["only_bg_t"] == accuracy["no_fg"] == 1
    assert accuracy["mixed_next"] == 0
    assert accuracy["only_fg"] == 0.25  # black is class 0
    agreeing = (images.background_label["mixed_rand"] == images.label).mean()
    assert accuracy["mixed_rand"] == agreeing
    assert report.bg_gap.value == pytest.approx(1 - agreeing)
    assert 0.05 < agreeing < 0.5  # one class in four, drawn
    assert report.bg_gap.low < report.bg_gap.value < report.bg_gap.high
    for name in MIXED:  # one-hot embeddings: the cosine is 1 where the class stays, 0 elsewhere
        result = report.variants[name]
        assert result.decision_consistency.value == accuracy[name]
        assert result.feature_consistency.value == pytest.approx(accuracy[name])
    assert [c.n for c in report.per_class] == [10] * K
    for row in report.per_class:
        assert row.bg_gap.value == pytest.approx(1 - row.accuracy["mixed_rand"].value)
    assert report.variants["only_fg"].decision_consistency is None


def test_honest_model_has_no_gap() -> None:
    report = evaluate_background_bias(honest(), toy_loader(), variants=MIXED)
    assert report.bg_gap.value == 0
    # 40 images that all keep their answer leave a gap of 6.0 points possible
    assert (report.bg_gap.low, report.bg_gap.high) == pytest.approx((-0.0605, 0.0605), abs=1e-4)
    for name in MIXED:
        assert report.variants[name].accuracy.value == 1
        assert report.variants[name].decision_consistency.value == 1
        assert report.variants[name].feature_consistency.value == pytest.approx(1)


def test_one_image() -> None:
    report = evaluate_background_bias(cheat(), toy_loader(1), variants=["original", "mixed_rand"])
    assert list(report.variants) == ["original", "mixed_rand"]
    assert report.variants["original"].accuracy.value == 1
    assert math.isnan(report.variants["original"].accuracy.low)
    assert report.variants["mixed_rand"].n_left_out == 1
    assert "mixed_rand" in report.summary()


def test_pretrained_architectures() -> None:
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    models = [timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=K)]
    models.append(torchvision.models.resnet18(num_classes=K))
    batches = [(torch.rand(4, 3, 32, 32), torch.arange(4) % 2, torch.zeros(4, 1, 32, 32)) for _ in range(2)]
    for _, _, mask in batches:
        mask[:, :, 8:20, 8:20] = 1
    for model in models:
        report = evaluate_background_bias(model, batches, variants=["mixed_rand"])
        assert len(report.images) == 8
        assert -1 <= report.variants["mixed_rand"].feature_consistency.value <= 1


def test_class_names_come_from_the_data_set() -> None:
    data = ToyImages()
    data.classes = ["ant", "bee", "cat", "dog"]
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=9), variants=["mixed_rand"])
    assert [c.name for c in report.per_class] == data.classes
    assert "BG-Gap" not in report.summary()
    with pytest.raises(ValueError, match="class_names: expected 4 names, one per output of the model, got 3"):
        evaluate_background_bias(cheat(), DataLoader(data), class_names=["a", "b", "c"], variants=[])


def test_preprocessing_belongs_to_the_model() -> None:
    class Shifted(Reader):
        def forward(self, image):
            return super().forward((image + 1) / 2)

    plain = evaluate_background_bias(
        cheat(), toy_loader(), variants=MIXED, attributions={"all": lambda m, x, t: x.abs()}
    )
    report = evaluate_background_bias(
        Shifted(0, 0, 0), toy_loader(), variants=MIXED, preprocess=lambda image: image * 2 - 1
    )
    assert {n: v.accuracy for n, v in report.variants.items()} == {n: v.accuracy for n, v in plain.variants.items()}
