"""What ``ISNetCallback`` refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch
from network_to_explain import Inner, PlainHeatmaps, data, loader, trainer
from small_training import Module
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_network_that_the_step_does_not_call_is_named(fraction):
    with pytest.raises(RuntimeError, match=r"did not call Inner.forward.*network=.*net \(Sequential\)"):
        trainer(PlainHeatmaps(fraction=fraction)).fit(Inner(), loader())
    with pytest.raises(LookupError, match="layer 'nett' is not in Module; near names: net"):
        trainer(PlainHeatmaps(network="nett")).fit(Module(), loader())
    with pytest.raises(LookupError, match="layer 'conv9'"):
        trainer(PlainHeatmaps(deep_supervision=["conv9"])).fit(Module(), loader())


class Prototypes(Module):
    """Its forward gives features; a class is as likely as its prototype, which nothing trains, is near."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(192, 16)))
        self.register_buffer("prototypes", torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))

    def classify(self, image):
        return -(self(image)[:, None] - self.prototypes).square().sum(-1)


class TakesBatches(Module):
    def forward(self, batch):
        return self.net(batch[0])

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch), batch[1])


def test_features_are_not_explained_as_if_they_were_classes():
    with pytest.raises(RuntimeError, match=r"tensor of shape \(8, 16\) .* these are features and no logits"):
        trainer(PlainHeatmaps()).fit(Prototypes(), loader())


def test_a_forward_that_takes_a_batch_is_named():
    with pytest.raises(TypeError, match="TakesBatches is given a list: name the submodule that maps images to logits"):
        trainer(PlainHeatmaps()).fit(TakesBatches(), loader())
    trainer(PlainHeatmaps(network="net")).fit(TakesBatches(), loader())


def test_bad_batches_are_named():
    image, label, mask = data().tensors
    with pytest.raises(KeyError, match="batch has no mask at 2"):
        trainer(PlainHeatmaps()).fit(Module(), DataLoader(TensorDataset(image, label), batch_size=8))
    small = DataLoader(TensorDataset(image, label, mask[:, :, 1:]), batch_size=8)
    with pytest.raises(ValueError, match=r"mask: expected shape \(8, 1, 8, 8\)"):
        trainer(PlainHeatmaps()).fit(Module(), small)
    raw = DataLoader(TensorDataset((image * 255).byte(), label, mask), batch_size=8)
    with pytest.raises(TypeError, match=r"image: expected a floating point tensor, got uint8 .*pass dimming=0"):
        trainer(PlainHeatmaps(dimming=1.0)).fit(Module(), raw)
    whole = DataLoader(TensorDataset(image, label, mask.long()), batch_size=8)
    with pytest.raises(TypeError, match=r"mask: expected bool .* got int64 .*; pass mask.bool\(\) if it holds 0 and 1"):
        trainer(PlainHeatmaps()).fit(Module(), whole)
    image = image.clone()
    image[3] = float("nan")
    broken = DataLoader(TensorDataset(image, label, mask), batch_size=8)
    with pytest.raises(ValueError, match=r"relevance: expected finite values.*sample\(s\) \[3\]"):
        trainer(PlainHeatmaps()).fit(Module(norm=False), broken)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"variant": "both"}, "variant: expected one of"),
        ({"weight": 1.2}, r"weight: expected P in \[0, 1\]"),
        ({"dimming": 1.5}, r"dimming: expected in \[0, 1\], got 1.5"),
        ({"fraction": 0.0}, r"fraction: expected in \(0, 1\]"),
        ({"calibrate": -1}, "calibrate: expected a whole number of at least 0, got -1"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"input_rule": "wsquare"}, "input_rule: expected one of"),
        ({"batch_norm": "none"}, "batch_norm: expected one of"),
        ({"attribution": "shap"}, "attribution: expected one of"),
    ],
)
def test_bad_options_are_named_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        PlainHeatmaps(**options)
    with pytest.raises(TypeError, match="loss: expected an ISNetLoss, got CrossEntropyLoss"):
        PlainHeatmaps(loss=nn.CrossEntropyLoss())
