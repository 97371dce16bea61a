"""The heatmap loss's gradient beside that of the network's own loss."""

from __future__ import annotations

import math

import pytest
import torch
from network_to_explain import Module, PlainHeatmaps, assert_differ, assert_same, loader, trainer
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.callbacks import ISNetCallback
from torch_bgdebias.isnet import GradientBalance, ISNet, ISNetLoss

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


def losses(own: float, heatmap: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Two losses with gradients of these norms, over two parameters."""
    one, two = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    direction = one.sum() * 0.6 + two.sum() * 0.8
    return own * direction, 1 + heatmap * direction, [one, two]


@pytest.mark.parametrize(
    ("own", "heatmap", "limit", "scale"),
    [
        (4.0, 1000.0, 1.0, 0.004), (4.0, 1000.0, 2.5, 0.01), (4.0, 3.0, 1.0, 1.0),
        (0.01, 50.0, 1.0, 0.02), (0.0, 50.0, 1.0, 0.02), (0.01, 0.5, 1.0, 1.0), (3.0, 0.0, 1.0, 1.0),
    ],
)  # fmt: skip
def test_scale_is_the_ratio_of_the_norms(own, heatmap, limit, scale):
    first, second, parameters = losses(own, heatmap)
    balance = GradientBalance(limit)
    scaled = balance(first, second, parameters)
    assert float(balance.scale) == pytest.approx(scale, rel=1e-5)
    gradients = torch.autograd.grad(scaled, parameters)
    assert float(torch.stack(gradients).norm()) == pytest.approx(scale * heatmap, rel=1e-5)


def test_geometric_means_of_what_was_measured_and_when():
    balance, values = GradientBalance(every=4), []
    for step in range(20):
        first, second, parameters = losses(2.0, 10.0 ** (1 + step % 3))
        measured = step < 8 or step % 4 == 0
        if measured:
            values.append(math.log(10.0 ** (1 + step % 3)))
        before = balance.scale.clone()
        balance(first, second, parameters)
        assert measured or torch.equal(balance.scale, before)
    mean = values[0]
    for value in values[1:]:
        mean += 0.2 * (value - mean)
    assert float(balance.scale) == pytest.approx(2.0 / math.exp(mean), rel=1e-4)


def test_the_mean_over_processes_counts():
    other = torch.tensor([math.log(8.0), math.log(10.0)])  # what another process measured
    balance = GradientBalance()
    balance(*losses(2.0, 1000.0), reduce=lambda logs: (logs + other) / 2)
    assert float(balance.scale) == pytest.approx(4.0 / 100.0, rel=1e-5)


def test_goes_on_where_it_was_and_survives_an_overflow():
    one, other = GradientBalance(every=2), GradientBalance(every=2)
    for step in range(5):
        one(*losses(2.0, 10.0 + step))
    other.load_state_dict(one.state_dict())
    for step in range(9):
        one(*losses(2.0, 50.0 + step))
        other(*losses(2.0, 50.0 + step))
    assert one.state_dict() == other.state_dict()
    before = one.scale
    one.steps = 0
    one(*losses(float("inf"), 5.0))
    assert torch.equal(one.scale, before)
    with pytest.raises(ValueError, match="limit: expected above 0, got 0"):
        GradientBalance(0)
    with pytest.raises(ValueError, match="every: expected a whole number of at least 1, got 0"):
        GradientBalance(every=0)
    with pytest.raises(ValueError, match="balance: expected None or a number above 0, got -1"):
        ISNetCallback(balance=-1)


def test_an_overflow_at_the_very_start_leaves_no_trace():
    weight = torch.ones(1, requires_grad=True)
    plain, overflown = GradientBalance(), GradientBalance()
    overflown(weight.sum(), weight.sum() * torch.inf, [weight])
    assert float(overflown.scale) == 0, "nothing measured: the heatmap loss waits"
    for balance in (plain, overflown):
        balance(weight.sum(), weight.sum() * 1000, [weight])
    assert float(overflown.scale) == float(plain.scale) == pytest.approx(1e-3)


def test_the_callback_scales_by_both_norms_over_the_modules_parameters():
    """A hand-written loop with the norms of two whole backward passes."""
    module, expected, without = Module(), Module(), Module()
    loss = ISNetLoss.paper(relevance_range=(1e-4, 1e-3), mask_dilation=0)  # far too little: a large gradient
    callback = PlainHeatmaps(loss=loss, network="net", balance=0.5)
    trainer(callback).fit(module, loader())
    trainer(PlainHeatmaps(loss=loss, network="net")).fit(without, loader())
    isnet, optimizer, means, scales = ISNet(expected.net), expected.configure_optimizers(), None, []
    expected.train()
    for image, label, mask in [*loader(), *loader()]:
        explained, norms = isnet.explain(image, create_graph=True), []
        entropy, heatmap = F.cross_entropy(explained.logits, label), loss(explained.relevance, mask)
        for part in (entropy, heatmap):
            expected.zero_grad()
            part.backward(retain_graph=True)
            norms.append(torch.cat([p.grad.flatten() for p in expected.parameters() if p.grad is not None]).norm())
        logs = torch.stack(norms).log()
        means = logs if means is None else means + 0.2 * (logs - means)
        scales.append(min(1.0, 0.5 * max(float(means[0].exp()), 1.0) / float(means[1].exp())))
        expected.zero_grad()
        (0.3 * entropy + 0.7 * scales[-1] * heatmap).backward()
        optimizer.step()
    assert len(scales) <= 8
    assert max(scales) < 0.5
    assert_same(module, expected, rtol=1e-4, atol=1e-6)
    assert_differ(module, without)
    assert float(trainer_scale(callback)) == pytest.approx(scales[-1], rel=1e-4)


def trainer_scale(callback: ISNetCallback) -> Tensor:
    """The scale of a callback's state."""
    balance = GradientBalance(0.5)
    balance.load_state_dict(callback.state_dict()["balance"])
    return balance.scale
