"""Over how many classes a loss is taken is read from its graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_bgdebias.lightning import answer_widths, binary_widths

LABEL = torch.arange(6) % 4
LOSSES = {
    "cross-entropy": (lambda z: F.cross_entropy(z, LABEL), {4}),
    "smoothed, weighted, of a dict": (lambda z: {"loss": 2 * F.cross_entropy(z, LABEL, label_smoothing=0.1) + 1}, {4}),
    "by hand": (lambda z: -(z.softmax(1)[range(6), LABEL]).log().mean(), {4}),
    "two heads": (lambda z: F.cross_entropy(z, LABEL) + F.cross_entropy(z[:, :2], LABEL % 2), {2, 4}),
    "distances": (lambda z: F.cross_entropy(-torch.cdist(z, torch.rand(9, 4)), LABEL), {9}),
    "no softmax": (lambda z: z.square().mean(), set()),
    "a part without gradient": (lambda z: F.cross_entropy(z.detach(), LABEL), set()),
    "nothing": (lambda z: None, set()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_widths(name: str) -> None:
    loss, widths = LOSSES[name]
    network = nn.Linear(3, 4)
    output = loss(network(torch.rand(6, 3)))
    assert answer_widths(output) == widths


def test_softmaxes_of_the_network_are_not_the_loss_s() -> None:
    gate, head = nn.Linear(3, 7), nn.Linear(7, 4)
    image = torch.rand(6, 3)
    assert answer_widths(F.cross_entropy(head(gate(image).softmax(1)), LABEL)) == {4}


ROWS = F.one_hot(LABEL, 4).float()
BINARY = {
    "of logits": (lambda z: F.binary_cross_entropy_with_logits(z, ROWS, reduction="none").sum(1).mean(), {4}),
    "of sigmoids, of a dict": (lambda z: {"loss": 2 * F.binary_cross_entropy(z.sigmoid(), ROWS)}, {4}),
    "one logit": (lambda z: F.binary_cross_entropy_with_logits(z[:, :1], ROWS[:, :1]), {1}),
    "one number": (lambda z: F.binary_cross_entropy_with_logits(z[:, 0], ROWS[:, 0]), set()),
    "a softmax": (lambda z: F.cross_entropy(z, LABEL), set()),
    "gates behind a softmax": (lambda z: F.cross_entropy(z.sigmoid() * z, LABEL), set()),
    "nothing": (lambda z: None, set()),
}


@pytest.mark.parametrize("name", BINARY)
def test_widths_of_binary_losses(name: str) -> None:
    loss, widths = BINARY[name]
    assert binary_widths(loss(nn.Linear(3, 4)(torch.rand(6, 3)))) == widths
