"""What a cheating and an honest model must score, exactly; order and batches must not matter."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from probe_toy import K, Reader, ToyImages, cheat, honest, same_images, toy_loader
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec
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
    # 40 images that all keep their answer leave a gap of 8.8 points possible
    assert (report.bg_gap.low, report.bg_gap.high) == pytest.approx((-0.0876, 0.0876), abs=1e-4)
    for name in MIXED:
        assert report.variants[name].accuracy.value == 1
        assert report.variants[name].decision_consistency.value == 1
        assert report.variants[name].feature_consistency.value == pytest.approx(1)


def test_order_and_batch_size_do_not_matter() -> None:
    data = ToyImages(37)
    shuffled = DataLoader(data, batch_size=5, shuffle=True)
    reports = [
        evaluate_background_bias(cheat(), loader, variants=MIXED)
        for loader in (DataLoader(data, batch_size=1), DataLoader(data, batch_size=37), shuffled)
    ]
    same_images(reports[0], reports[1])
    same_images(reports[0], reports[2], but=("position",))
    assert reports[0].to_dict()["variants"] == reports[2].to_dict()["variants"]
    assert reports[0].bg_gap == reports[2].bg_gap


def test_images_without_partner_or_foreground_are_counted_and_left_out() -> None:
    data = ToyImages(9)  # class 0 three times, others twice
    data.labels[8] = 3
    data.labels[4] = 1  # class 0 once
    data.masks[1] = 0
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=2), variants=["mixed_same", "only_fg"])
    assert report.counts["without_foreground"] == 1
    assert report.counts["without_partner_mixed_same"] == 1
    assert report.variants["mixed_same"].n_left_out == 2
    assert report.variants["mixed_same"].accuracy.n == 7
    assert report.variants["only_fg"].n_left_out == 1
    assert report.variants["original"].n_left_out == 0
    alone = int(np.flatnonzero(report.images.position == 0)[0])
    assert not report.images.valid("mixed_same")[alone]
    assert math.isnan(report.images.cosine["mixed_same"][alone])


def test_one_image() -> None:
    report = evaluate_background_bias(cheat(), toy_loader(1), variants=["mixed_rand"])
    assert report.variants["original"].accuracy.value == 1
    assert math.isnan(report.variants["original"].accuracy.low)
    assert report.variants["mixed_rand"].n_left_out == 1
    assert "mixed_rand" in report.summary()


def test_model_and_global_state_are_left_as_found() -> None:
    model = cheat().train()
    model.head.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    evaluate_background_bias(model, DataLoader(ToyImages(), batch_size=8, shuffle=True))
    assert model.training
    assert model.norm.training
    assert not model.head.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_model_is_left_as_found_after_an_error() -> None:
    class Breaks(Reader):
        def forward(self, image):
            if self.training:
                raise AssertionError("evaluated in training mode")
            raise RuntimeError("broken")

    model = Breaks(0, 0, 0).train()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate_background_bias(model, toy_loader())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_dict_batches_and_dict_outputs() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cheat()

        def forward(self, pixels, flag):
            return {"scores": self.inner(pixels), "flag": flag}

    plain = evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand"])
    report = evaluate_background_bias(
        Wrapped(),
        toy_loader(kind="dict"),
        spec=BatchSpec(image="pixels", label="y", mask="seg"),
        forward=lambda model, image: model(image, flag=True),
        logits="scores",
        layer="inner.head",
        variants=["mixed_rand"],
    )
    same_images(plain, report)


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


def test_examples_are_images_that_were_hurt() -> None:
    report = evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand", "mixed_next"], examples=4)
    assert len(report.examples) == 4
    for example in report.examples:
        assert example.prediction["original"] == example.label
        assert example.prediction["mixed_next"] != example.label
        assert set(example.pictures) == {"original", "mixed_rand", "mixed_next"}
        picture = example.pictures["original"]
        assert picture.shape == (10, 10, 3)
        assert picture.dtype == np.uint8
        assert picture[5, 5, 0] == round(0.9 * 255)


def test_variants_that_the_batch_brings_along() -> None:
    data = ToyImages()
    swapped = data.images.roll(1, 0)  # of the next image's class
    there = torch.arange(40) > 3

    def batches():
        for i in (slice(0, 25), slice(25, 40)):
            ready = {"mixed_rand": (swapped[i], data.labels.roll(1)[i], there[i]), "mixed_same": data.images[i]}
            yield data.images[i], data.labels[i], data.masks[i], ready

    report = evaluate_background_bias(cheat(), list(batches()), variants=MIXED[:2], ready=3)
    assert report.variants["mixed_same"].accuracy.value == 1
    assert report.variants["mixed_rand"].accuracy.value == 0
    assert report.variants["mixed_rand"].n_left_out == 4
    assert report.counts["without_partner_mixed_rand"] == 4
    assert sorted(set(report.images.background_label["mixed_rand"])) == [-1, 0, 1, 2, 3]
    with pytest.raises(KeyError, match="expected a dict of variants at 3 of batch 0, got without mixed_next"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_next"], ready=3)
    with pytest.raises(KeyError, match="got float32 tensor"):
        evaluate_background_bias(cheat(), list(batches()), variants=["mixed_same"], ready=2)
    wrong = [(*b[:3], {"mixed_same": b[0][:, :, 1:]}) for b in batches()]
    with pytest.raises(ValueError, match=r"ready\['mixed_same'\]: expected images \(25, 3, 10, 10\), got"):
        evaluate_background_bias(cheat(), wrong, variants=["mixed_same"], ready=3)


def test_class_names_come_from_the_data_set() -> None:
    data = ToyImages()
    data.classes = ["ant", "bee", "cat", "dog"]
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=9), variants=["mixed_rand"])
    assert [c.name for c in report.per_class] == data.classes
    assert "BG-Gap" not in report.summary()
    with pytest.raises(ValueError, match="class_names: expected 4 names, one per output of the model, got 3"):
        evaluate_background_bias(cheat(), DataLoader(data), class_names=["a", "b", "c"], variants=[])


def test_summary_says_the_numbers() -> None:
    text = evaluate_background_bias(cheat(), toy_loader(), name="cheat").summary()
    for part in ("cheat: background bias (40 images, 4 classes", "original", "accuracy 100.0 [91.2, 100.0]", "BG-Gap"):
        assert part in text


def test_progress_wraps_both_passes() -> None:
    seen = []

    def progress(batches, *, total, label):
        seen.append((label, total))
        return batches

    evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand"], progress=progress)
    assert seen == [("backgrounds", 6), ("images", 6)]


def test_one_logit_is_classified_at_zero() -> None:
    class OneLogit(nn.Module):
        def forward(self, image):
            return (image[:, 0, 0, 0] - 0.05) * 100

    batches = [(x, y.float()[:, None], m) for x, y, m in toy_loader(classes=2)]  # as binary cross-entropy wants them
    options = {"variants": ["mixed_same", "mixed_rand"], "embeddings": False, "task": "binary"}
    report = evaluate_background_bias(OneLogit(), batches, **options)
    assert report.class_names == ["0", "1"]
    np.testing.assert_array_equal(report.images.prediction["mixed_rand"], report.images.background_label["mixed_rand"])
    assert report.variants["mixed_same"].accuracy.value == 1
    expected = torch.sigmoid(torch.tensor([5.0]))
    assert report.images.confidence["original"] == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="expected one logit an image for task='binary', got float32 tensor of shape"):
        evaluate_background_bias(cheat(), batches, **options)


def test_a_softmax_head_is_noticed() -> None:
    class Softmax(Reader):
        def forward(self, image):
            return super().forward(image).softmax(1)

    plain = evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand"])
    with pytest.warns(UserWarning, match="every row is at least 0 and adds up to 1, so a softmax was taken already"):
        report = evaluate_background_bias(Softmax(0, 0, 0), toy_loader(), variants=["mixed_rand"])
    np.testing.assert_allclose(report.images.confidence["original"], plain.images.confidence["original"], rtol=1e-5)
    assert report.settings["outputs"] == "probabilities"
    assert plain.settings["outputs"] == "logits"


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
