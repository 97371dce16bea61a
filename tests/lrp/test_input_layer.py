"""The z^B rule where several layers, or others too, take the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias import ISNet
from torch_bgdebias.models import eval_mode

BOX = {"input_rule": "zbox", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "epsilon": 1e-6, "dual_target": "sum"}


def picture() -> Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Branches(nn.Module):
    """Two layers on the image with a batch norm each, side by side, or the same weights in one layer."""

    def __init__(self, one: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        for values in (self.norm.weight, self.norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
        for values in (self.norm.bias, self.norm.running_mean, self.conv.bias):
            nn.init.normal_(values)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
        self.one = one

    def forward(self, x: Tensor) -> Tensor:
        if self.one:
            return self.body(self.norm(self.conv(x)))
        parts = [F.conv2d(x, self.conv.weight[rows], self.conv.bias[rows], padding=1) for rows in HALVES]
        norm = self.norm
        normed = [
            F.batch_norm(
                part, norm.running_mean[rows], norm.running_var[rows], norm.weight[rows], norm.bias[rows], self.training
            )
            for part, rows in zip(parts, HALVES, strict=True)
        ]
        return self.body(torch.cat(normed, 1))


HALVES = [slice(0, 4), slice(4, 8)]


@pytest.mark.parametrize("variant", ["selective", "dual", "original"])
@pytest.mark.parametrize("train", [True, False])
def test_two_layers_on_the_image_are_as_one_with_the_weights_of_both(variant, train):
    heatmap, expected = (
        ISNet(Branches(one).double().train(train), variant, **BOX).explain(picture()).relevance for one in (False, True)
    )
    torch.testing.assert_close(heatmap, expected)


class Skip(nn.Module):
    """The image itself goes on beside the layer that takes it."""

    def __init__(self, layer: bool = True, image: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(7 * 30, 5)
        self.layer, self.image = layer, image

    def forward(self, x: Tensor) -> Tensor:
        parts = self.conv(x if self.layer else x.detach()), x if self.image else x.detach()
        return self.fc(torch.cat(parts, 1).flatten(1))


@pytest.mark.parametrize("variant", ["selective", "original"])
def test_what_reaches_the_image_by_other_ways_is_input_times_gradient(variant):
    together = ISNet(Skip().double(), variant, **BOX).explain(picture()).relevance
    layer = ISNet(Skip(image=False).double(), variant, **BOX).explain(picture()).relevance
    image = ISNet(Skip(layer=False).double(), variant, epsilon=0).explain(picture()).relevance
    torch.testing.assert_close(together, layer + image)
    assert layer.abs().sum() > 0
    assert image.abs().sum() > 0


class Same(nn.Module):
    """An even kernel with "same" padding, for which torch pads the image by a pixel more on one side."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 4, padding="same" if named else 0), nn.Linear(4 * 30, 5)
        self.named = named

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.named else F.pad(x, (1, 2, 1, 2))
        return self.fc(F.relu(self.conv(x)).flatten(1))


def test_padding_that_is_larger_on_one_side():
    relevance = ISNet(Same(named=True).double(), **BOX).explain(picture()).relevance
    wide = ISNet(Same(named=False).double(), **BOX)
    low, high = (bound.double().view(1, 3, 1, 1).expand(1, 3, 6, 5) for bound in (wide.box.low, wide.box.high))

    def reference() -> Tensor:
        """The rule written out for an unfolded image: matrix products."""
        net = wide.model
        columns = F.unfold(F.pad(picture(), (1, 2, 1, 2)), 4)
        weight = net.conv.weight.flatten(1)
        z = (weight @ columns + net.conv.bias.view(1, -1, 1)).detach().requires_grad_()
        logits = net.fc(F.relu(z).flatten(1))
        log = torch.log_softmax(logits, 1)
        lowest = log.amin(1)
        score = lowest - torch.log1p(-lowest.exp())
        (gradient,) = torch.autograd.grad(score.sum(), z)
        boxes = [F.unfold(F.pad(b, (1, 2, 1, 2)), 4) for b in (low, high)]
        plus, minus = weight.clamp(min=0), weight.clamp(max=0)
        boxed = weight @ columns + net.conv.bias.clamp(min=0).view(1, -1, 1) - plus @ boxes[0] - minus @ boxes[1]
        share = gradient * z / (boxed + boxed.sign() * BOX["epsilon"])
        parts = columns * (weight.T @ share) - boxes[0] * (plus.T @ share) - boxes[1] * (minus.T @ share)
        return F.fold(parts, (9, 8), 4)[:, :, 1:-2, 1:-2]

    torch.testing.assert_close(relevance[:, 0], reference(), rtol=1e-3, atol=1e-5)


def test_an_image_that_is_changed_first_is_not_taken_for_the_image():
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Same(named=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.net.fc(self.net.conv(F.pad(x.square(), (1, 2, 1, 2))).flatten(1))

    with pytest.raises(RuntimeError, match="no linear or convolution layer of Squared takes the image itself"):
        ISNet(Squared().double(), **BOX).explain(picture())


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_copies_and_other_shapes_of_the_image_are_the_image(variant):
    class Copied(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clone().unsqueeze(0).squeeze(0).contiguous(memory_format=torch.channels_last))

    plain, copied = Branches(True).double(), Copied(True).double()
    with eval_mode(plain), eval_mode(copied):
        heatmap, expected = (ISNet(net, variant, **BOX).explain(picture()).relevance for net in (copied, plain))
    torch.testing.assert_close(heatmap, expected)
