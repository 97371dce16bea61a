"""Where the logits are in a model's output, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_toy import Reader, cheat, same_images, toy_loader
from torch import nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.probe import evaluate_background_bias


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
