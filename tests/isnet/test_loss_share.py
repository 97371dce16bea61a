"""The loss's default form: the share of relevance on the foreground, at the input and at hidden layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.callbacks import ISNetCallback
from torch_bgdebias.isnet import ISNet, ISNetLoss, calibrate_relevance_range
from torch_bgdebias.isnet.functional import resize_mask, share_term


def network() -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 36, 4)).double()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(3, 1, 12, 12).double()
    mask[:, :, 3:8, 4:9] = 1
    return torch.rand(3, 3, 12, 12, generator=generator).double(), mask


def test_equals_the_formula_pixel_by_pixel():
    generator = torch.Generator().manual_seed(1)
    relevance = torch.randn(2, 2, 3, 5, 4, generator=generator).double()
    mask = torch.rand(2, 1, 5, 4, generator=generator).double()  # soft
    terms, default = share_term(relevance, mask, saturation=1.0), share_term(relevance, mask)
    for b in range(2):
        for k in range(2):
            pixels = [
                (abs(float(relevance[b, k, c, y, x])), float(mask[b, 0, y, x]))
                for c in range(3)
                for y in range(5)
                for x in range(4)
            ]
            share = sum(r * m for r, m in pixels) / sum(r for r, _ in pixels)
            assert float(terms[b, k]) == pytest.approx(-math.log(share), rel=1e-9)
            assert float(default[b, k]) == pytest.approx(math.log(1 + (1 / share - 1) / 0.1), rel=1e-9)
    torch.testing.assert_close(ISNetLoss(mask_dilation=0, reduction="none")(relevance, mask), default.mean(1))
    one = ISNetLoss(mask_dilation=0, saturation=1.0)
    assert one.form == "share"
    torch.testing.assert_close(one(relevance, mask), terms.mean())


def test_does_not_depend_on_how_large_relevance_is():
    relevance = torch.randn(3, 1, 3, 12, 12, generator=torch.Generator().manual_seed(2)).double()
    _, mask = images()
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(share_term(relevance * scale, mask), share_term(relevance, mask), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_gradient_stays_while_the_papers_grows_with_relevance(size):
    """The last layer's weights times ``size``: all relevance is that much larger, and the share is what it was."""

    def norm(loss: ISNetLoss, factor: float) -> float:
        net = network()
        with torch.no_grad():
            net[-1].weight.mul_(factor)
        image, mask = images()
        isnet = ISNet(net, input_rule="gradient")
        explained = isnet.explain(image, torch.zeros(3, dtype=torch.int64), create_graph=True)
        gradients = torch.autograd.grad(loss(explained.relevance, mask), list(net[:4].parameters()), allow_unused=True)
        return float(torch.cat([g.flatten() for g in gradients if g is not None]).norm())

    assert norm(ISNetLoss(mask_dilation=0), size) == pytest.approx(norm(ISNetLoss(mask_dilation=0), 1.0), rel=1e-5)
    papers = ISNetLoss.paper(mask_dilation=0)
    assert norm(papers, size) > 10 * norm(papers, 1.0)


@pytest.mark.parametrize("variant", ["selective", "original", "dual"])
@pytest.mark.parametrize("at_input", [True, False])
def test_gradients_are_finite_differences(variant, at_input):
    net = network()
    image, mask = images()
    isnet = ISNet(net, variant, input_rule="gradient", deep_supervision=["1"], at_input=at_input, dual_target="sum")
    criterion = ISNetLoss(mask_dilation=0)

    def loss() -> Tensor:
        explained = isnet.explain(image, create_graph=True)
        return criterion(explained.relevance, mask, explained.hidden)

    parameters = [net[0].weight, net[2].weight, net[5].weight]
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(5)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator).double()
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
            values.append(float(loss().detach()))
            with torch.no_grad():
                parameter.sub_(direction, alpha=step)
        slope = (values[0] - values[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_masks_without_background_or_object():
    relevance = torch.randn(2, 1, 3, 6, 6).double().requires_grad_()
    full = share_term(relevance, torch.ones(2, 1, 6, 6).double())
    assert not full.any()
    assert not torch.autograd.grad(full.sum(), relevance)[0].any()
    empty = share_term(relevance, torch.zeros(2, 1, 6, 6).double())
    torch.testing.assert_close(empty[:, 0], torch.log1p(relevance.abs().sum((1, 2, 3, 4))))
    nothing = torch.zeros(2, 1, 3, 6, 6).double().requires_grad_()
    terms = share_term(nothing, resize_mask(images()[1][:2], (6, 6)))
    assert not terms.any()
    assert torch.isfinite(torch.autograd.grad(terms.sum(), nothing)[0]).all()


def test_hidden_layers_alone_are_those_beside_the_input():
    image, mask = images()
    both = ISNet(network(), deep_supervision=["1", "3"]).explain(image)
    alone = ISNet(network(), deep_supervision=["1", "3"], at_input=False).explain(image)
    assert alone.relevance.shape == (3, 1, 0, 12, 12)
    for name, relevance in both.hidden.items():
        torch.testing.assert_close(alone.hidden[name], relevance, rtol=0, atol=0)
    criterion = ISNetLoss(mask_dilation=1)
    grown = F.max_pool2d(mask, 3, 1, 1)
    parts = [share_term(r, resize_mask(grown, tuple(r.shape[-2:]))).mean() for r in alone.hidden.values()]
    torch.testing.assert_close(criterion(alone.relevance, mask, alone.hidden), sum(parts) / 2)
    with pytest.raises(ValueError, match=r"relevance: expected shape \(B, M, C, H, W\), none of them 0"):
        criterion(alone.relevance, mask)


def test_the_papers_form_is_one_word_away():
    relevance = torch.randn(2, 1, 3, 12, 12).double()
    mask = images()[1][:2]
    assert ISNetLoss().form == "share"
    assert ISNetLoss.paper().form == ISNetLoss(rank_decay=0.5).form == ISNetLoss(hidden_ranges={"1": (1, 2)}).form
    assert ISNetLoss.paper().relevance_range == (1.0, 25.0)
    torch.testing.assert_close(ISNetLoss.paper()(relevance, mask), ISNetLoss((1.0, 25.0))(relevance, mask))
    assert not torch.isclose(ISNetLoss.paper()(relevance, mask), ISNetLoss()(relevance, mask))
    assert "share" in repr(ISNetLoss())
    assert "rank_decay=0.9" in repr(ISNetLoss.paper())


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="form: 'share' has no rank_decay and no foreground"):
        ISNetLoss(rank_decay=0.5, foreground="l2", form="share")
    with pytest.raises(ValueError, match="form: expected one of"):
        ISNetLoss(form="shares")
    with pytest.raises(ValueError, match="relevance_range: the loss's form 'share' does not depend on"):
        ISNetLoss().with_ranges((1.0, 2.0))
    with pytest.raises(ValueError, match="calibrate: the loss's form 'share' does not depend on"):
        ISNetCallback(calibrate=2, loss=ISNetLoss())
    assert ISNetCallback(calibrate=2).loss.form == "paper"
    hidden = {"deep_supervision": ["net.0"], "at_input": False}
    with pytest.raises(ValueError, match="calibrate: measures the input's range"):
        ISNetCallback(calibrate=2, loss=ISNetLoss.paper(), **hidden)
    with pytest.raises(ValueError, match="at_input: False leaves nothing to explain; name layers in deep_supervision"):
        ISNetCallback(at_input=False)
    with pytest.raises(ValueError, match="at_input: False leaves out the image, where z"):
        ISNetCallback(**hidden, input_rule="zbox")
    isnet = ISNet(network(), deep_supervision=["1"], at_input=False)
    with pytest.raises(ValueError, match="at_input: False leaves the input out, whose range is to be measured"):
        calibrate_relevance_range(isnet, [])
