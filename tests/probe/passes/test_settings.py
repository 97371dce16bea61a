"""What does not fit is refused by name: batches, options, layers."""

from __future__ import annotations

import warnings

import hostile
import pytest
import torch
from probe_toy import ToyImages, cheat, toy_loader
from torch import nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.probe import evaluate_background_bias


def _batch(**changes):
    data = ToyImages(6)
    fields = {"image": data.images, "label": data.labels, "mask": data.masks} | changes
    return [(fields["image"], fields["label"], fields["mask"])]


@pytest.mark.parametrize(
    ("batches", "error", "match"),
    [
        ([(torch.rand(2, 3, 10, 10), torch.tensor([0, 1]))], KeyError, r"batch has no mask at 2; it holds 2 item\(s\)"),
        (_batch(mask=torch.ones(6, 1, 9, 10)), ValueError, r"mask: expected shape \(6, 1, 10, 10\)"),
        (_batch(mask=torch.full((6, 1, 10, 10), 255)), TypeError, "mask: expected bool or floating point"),
        (_batch(mask=torch.full((6, 1, 10, 10), 2.0)), ValueError, r"mask: expected values in \[0, 1\], got \[2, 2\]"),
        (
            _batch(mask=torch.full((6, 1, 10, 10), torch.nan)),
            ValueError,
            r"mask: expected values in \[0, 1\], got \[nan",
        ),
        (
            _batch(label=torch.tensor([0, 1, 2, 3, 4, 0])),
            ValueError,
            r"label: expected classes in \[0, 3\], the model's",
        ),
        (_batch(label=torch.tensor([0, 1, 2, 3, -1, 0])), ValueError, "label: expected classes of at least 0, got -1"),
        (_batch(label=torch.rand(6)), TypeError, "label: expected integer classes"),
        (_batch(image=torch.zeros(6, 3, 10, 10, dtype=torch.uint8)), TypeError, "image: expected a floating point"),
        ([], ValueError, "loader: expected at least one batch with an image, got none"),
        (iter(_batch()), TypeError, "loader: expected an iterable that starts again each time, got list_iterator"),
        (3, TypeError, "loader: expected an iterable of batches, got int"),
    ],
)
def test_bad_batches(batches, error, match) -> None:
    with pytest.raises(error, match=match):
        evaluate_background_bias(cheat(), batches)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"variants": ["mixed"]}, ValueError, "variants: expected one of 'only_fg'"),
        ({"spec": BatchSpec(mask=None)}, ValueError, "mask: expected foreground masks in every batch"),
        ({"num_classes": 7}, LookupError, None),
        ({"num_classes": 7, "layer": "head"}, ValueError, "num_classes: expected 7 outputs of the model, got 4"),
        ({"layer": "heat"}, LookupError, "layer 'heat' is not in Reader; near names: head"),
        ({"layer": "norm", "logits": "x"}, TypeError, "model output: no logits at 'x'"),
        ({"mean": [0.5]}, ValueError, "mean, std: expected both or none, got only mean"),
        ({"seed": -1}, ValueError, "seed: expected a whole number of at least 0, got -1"),
        ({"device": "meta"}, ValueError, r"device: expected where the model is \(cpu\), got meta"),
        ({"max_backgrounds": 1}, ValueError, "max_backgrounds: expected a whole number of at least 2, got 1"),
        ({"backgrounds": "forest"}, TypeError, "backgrounds: expected uint8 or float images"),
        ({"backgrounds": torch.zeros(0, 3, 4, 4)}, ValueError, "backgrounds: expected at least one image, got none"),
        (
            {"backgrounds": torch.zeros(2, 1, 4, 4)},
            ValueError,
            "backgrounds: expected 3 channels like the images, got 1",
        ),
        (
            {"backgrounds": torch.zeros(2, 3, 4, 4), "background_labels": torch.zeros(3).long()},
            ValueError,
            r"background_labels: expected shape \(2,\)",
        ),
        ({"examples": -1}, ValueError, "examples: expected a whole number of at least 0, got -1"),
        ({"confidence": 95}, ValueError, r"confidence: expected a number in \(0, 1\), got 95"),
        ({"scores": {"s": lambda m, x, k, y: x}}, ValueError, r"scores\['s'\]: expected one number an image \(6,\)"),
        ({"logits": lambda out: out[:, :1]}, ValueError, r"model output: expected logits \(6, K\), K > 1, got float32"),
        ({"logits": lambda out: out * torch.nan}, ValueError, r"logits \(original, batch 0\): expected finite values"),
        ({"variant": ["mixed_rand"]}, TypeError, "unexpected keyword argument 'variant'"),
    ],
)
def test_bad_settings(options, error, match) -> None:
    if error is LookupError and "num_classes" in options:
        # no such head: the embedding is left out with a warning, then the outputs do not fit
        with (
            pytest.warns(UserWarning, match="feature consistency is left out, pass layer= to have it: no layer with 7"),
            pytest.raises(ValueError, match="num_classes: expected 7 outputs of the model, got 4"),
        ):
            evaluate_background_bias(cheat(), _batch(), **options)
        return
    with pytest.raises(error, match=match):
        evaluate_background_bias(cheat(), _batch(), **options)


def test_no_telling_which_layer() -> None:
    class Pixel(nn.Module):
        def forward(self, image):
            return 8.0 * nn.functional.one_hot((image[:, 0, 0, 0] * 10).round().long().clamp(0, 2), 3) - 1

    with pytest.warns(UserWarning, match="feature consistency is left out.*Pixel has no nn.Linear layer"):
        report = evaluate_background_bias(Pixel(), toy_loader(classes=3), variants=["mixed_rand"])
    assert report.variants["mixed_rand"].feature_consistency is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_background_bias(Pixel(), toy_loader(classes=3), variants=["mixed_rand"], embeddings=False)


@hostile.wrong(
    image=hostile.IMAGES, mask=hostile.MASKS, label=hostile.LABELS,
    but=["image: none", "image: a list", "image: NaN", "image: infinite", "mask: a list", "label: one-hot"],
)  # fmt: skip
def test_wrong_batches_are_named(wrong):
    """What is no tensor is named by its place in the batch, values that are not finite by the logits they give.

    Labels of two dimensions are several a picture.
    """
    image, label, mask = ToyImages(8)[:]

    def measured(image, mask, label):
        return evaluate_background_bias(cheat(), [(image, label, mask)], variants=["mixed_same"])

    wrong.refused_by(measured, image=image, mask=mask, label=label)
