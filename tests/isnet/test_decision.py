"""Whether a loss is made of what the network returned, also where the step gives that another shape first."""

from __future__ import annotations

import pytest
import torch
from network_to_explain import PlainHeatmaps, assert_same, loader, trainer
from small_training import Module
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.isnet.decision import link_to_loss

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


def test_the_same_values_in_another_shape_are_the_same_output() -> None:
    image, label = torch.rand(5, 6), torch.arange(5) % 4
    body, head = nn.Linear(6, 4), nn.Linear(4, 4)
    maps = body(image)[:, :, None, None].relu()
    assert link_to_loss(F.cross_entropy(maps.flatten(1), label), maps.flatten(1)) == "logits"
    assert link_to_loss(F.cross_entropy(maps[..., 0].squeeze(-1), label), maps.flatten(1)) == "logits"
    assert link_to_loss(F.cross_entropy(head(maps.flatten(1)), label), maps.flatten(1)) == "features"
    assert link_to_loss(F.cross_entropy(body(image), label), maps.flatten(1)) == "none"


class Convolutional(Module):
    """Convolutions alone: (B, 4, 1, 1), which the step gives the shape of logits itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*self.net[:-2], nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.shaped(self(batch[0])), batch[1])

    def shaped(self, logits: Tensor) -> Tensor:
        return logits.flatten(1)


class ConvolutionalFlat(Convolutional):
    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).flatten(1)

    def shaped(self, logits: Tensor) -> Tensor:
        return logits


class ConvolutionalSqueezed(Convolutional):
    def shaped(self, logits: Tensor) -> Tensor:
        return logits[..., 0].squeeze(-1)


@pytest.mark.parametrize("kind", [Convolutional, ConvolutionalSqueezed])
def test_logits_of_one_place_an_image_are_the_logits(kind):
    torch.manual_seed(0)
    module, flat = kind(), ConvolutionalFlat()
    flat.load_state_dict(module.state_dict())
    for one in (module, flat):
        trainer(PlainHeatmaps()).fit(one, loader())
    assert_same(module, flat, rtol=1e-4, atol=1e-6)
