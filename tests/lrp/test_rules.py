"""Trainable rules: zennit's own heatmaps, gradients equal to finite differences, on parameters that stay the same."""

from __future__ import annotations

import pytest
import torch
from finite_differences import assert_agree, derivatives, gradients
from torch import Tensor, nn

from torch_bgdebias.lrp import FlexComposite, relevance, trainable

pytest.importorskip("zennit")
from zennit import rules as zr
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus, EpsilonPlusFlat
from zennit.core import Composite, Stabilizer

RULES = {
    "epsilon": lambda: zr.Epsilon(1e-2),
    "epsilon0.25": lambda: zr.Epsilon(Stabilizer(0.25)),
    "zplus": lambda: zr.ZPlus(1e-3),
    "alphabeta": lambda: zr.AlphaBeta(2, 1, 1e-3),
    "gamma": lambda: zr.Gamma(0.25, 1e-2),
    "gamma-nobias": lambda: zr.Gamma(0.5, 1e-2, zero_params="bias"),
    "zbox": lambda: zr.ZBox(-1.0, 2.0, 1e-2),
    "wsquare": lambda: zr.WSquare(1e-2),
    "flat": lambda: zr.Flat(1e-2),
}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, groups=2)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.fc(self.pool(x).flatten(1))


@pytest.fixture
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(3)
    return Small().double(), torch.rand(2, 2, 6, 6, dtype=torch.float64) + 0.1, torch.tensor([2, 0])


def everywhere(rule) -> Composite:
    return Composite(lambda _, name, module: rule if isinstance(module, (nn.Conv2d, nn.Linear)) else None)


def zennits(model: nn.Module, x: Tensor, target: Tensor, composite: Composite) -> Tensor:
    before = [p.detach().clone() for p in model.parameters()]
    with Gradient(model, composite) as attributor:
        _, heatmap = attributor(x.clone(), nn.functional.one_hot(target, 3).double())
    for name, value in zip([n for n, _ in model.named_parameters()], before, strict=True):
        assert torch.equal(model.get_parameter(name), value)  # zennit 1.0.0 exchanges the objects, not the values
    return heatmap.detach()


def composites():
    for name, rule in RULES.items():
        yield pytest.param(lambda r=rule: everywhere(r()), id=name)
    # stock composites of zennit; Pass on activations, sums in pooling
    yield pytest.param(lambda: EpsilonPlus(epsilon=1e-2, stabilizer=1e-2), id="EpsilonPlus")
    yield pytest.param(lambda: EpsilonPlusFlat(epsilon=1e-2, stabilizer=1e-2), id="EpsilonPlusFlat")
    yield pytest.param(lambda: EpsilonAlpha2Beta1(epsilon=1e-2, stabilizer=1e-2), id="EpsilonAlpha2Beta1")
    yield pytest.param(lambda: EpsilonGammaBox(-1.0, 2.0, epsilon=1e-2, stabilizer=1e-2), id="EpsilonGammaBox")


@pytest.mark.parametrize("make", list(composites()))
def test_heatmap_is_zennits_and_gradients_are_finite_differences(problem, make):
    model, x, target = problem
    expected = zennits(model, x, target, make())
    parameters = list(model.parameters())
    _, heatmap = relevance(model, x, target, trainable(make()))
    assert heatmap.shape == (2, 1, 2, 6, 6)
    torch.testing.assert_close(heatmap[:, 0].detach(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    weights = torch.randn(heatmap.shape, dtype=heatmap.dtype, generator=torch.Generator().manual_seed(1))

    def function() -> Tensor:
        return (relevance(model, x, target, make())[1] * weights).sum()

    checks = derivatives(function, model.named_parameters(), gradients(function, model))
    if all(check.exact == 0 for check in checks):  # Flat alone knows no weights
        assert all(check.numeric == 0 for check in checks)
    assert_agree(checks, floor=1e-6)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def test_stock_rule_would_be_wrong(problem):
    """What the conversion is for: zennit's own rule has other gradients than finite differences."""
    model, x, target = problem
    place = x.clone().requires_grad_()
    with everywhere(zr.Epsilon(1e-2)).context(model):
        score = model(place).gather(1, target[:, None]).sum()
        (squares,) = torch.autograd.grad(score, place, create_graph=True)
    squares = squares.square().sum()
    grads = (
        torch.autograd.grad(squares, list(model.parameters()), allow_unused=True) if squares.requires_grad else [None]
    )
    _, right = relevance(model, x, target, everywhere(zr.Epsilon(1e-2)))
    true = torch.autograd.grad(right.square().sum(), list(model.parameters()), allow_unused=True)
    assert grads[0] is None or not torch.allclose(grads[0], true[0], rtol=1e-2)


def test_rule_as_class_and_instance():
    rule = trainable(zr.Gamma)(0.1)
    assert isinstance(rule, zr.Gamma)
    assert type(rule) is type(trainable(zr.Gamma()))
    assert trainable(trainable(zr.Gamma)) is trainable(zr.Gamma)
    assert isinstance(rule.copy(), zr.Gamma)


@pytest.mark.parametrize("wrong", [zr.Pass(), nn.ReLU(), "epsilon", int])
def test_other_things_are_refused(wrong):
    with pytest.raises(TypeError, match="rule: expected a zennit BasicHook"):
        trainable(wrong)


def test_canonizers_are_refused(problem):
    from zennit.torchvision import VGGCanonizer

    model, x, target = problem
    composite = EpsilonPlus(canonizers=[VGGCanonizer()])
    with pytest.raises(ValueError, match=r"canonizers \(VGGCanonizer\) rewrite weights"):
        relevance(model, x, target, composite)
    assert relevance(model, x, target, composite, create_graph=False)[1].shape == (2, 1, 2, 6, 6)


def test_flex_with_zennits_own_attributor(problem):
    model, x, target = problem
    expected = zennits(model, x, target, FlexComposite(1e-2))
    heatmap = relevance(model, x, target, FlexComposite(1e-2))[1]
    torch.testing.assert_close(heatmap[:, 0], expected)
    place = x.clone().requires_grad_()
    composite = FlexComposite(1e-2)
    with composite.context(model):
        score = model(place).gather(1, target[:, None]).sum()
        with composite.inactive():
            (plain,) = torch.autograd.grad(score, place, retain_graph=True)
        (flex,) = torch.autograd.grad(score, place)
    torch.testing.assert_close(flex, expected)
    torch.testing.assert_close(plain, torch.autograd.functional.jacobian(
        lambda x: model(x).gather(1, target[:, None]).sum(), x))  # fmt: skip


def test_hooks_are_gone_after_success_and_failure(problem):
    model, x, target = problem
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks), dict(m.__dict__)) for m in model.modules()]
    for composite in (FlexComposite(), everywhere(zr.Epsilon())):
        relevance(model, x, target, composite)
        with pytest.raises(ValueError, match="classes in"):
            relevance(model, x, torch.tensor([7, 0]), composite)
        handle = model.fc.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            relevance(model, x, target, composite)
        handle.remove()
        assert torch.overrides._get_current_function_mode_stack() == []
    after = [(len(m._forward_hooks), len(m._forward_pre_hooks), dict(m.__dict__)) for m in model.modules()]
    assert [a[:2] for a in after] == [b[:2] for b in before]
    assert [a[2].keys() for a in after] == [b[2].keys() for b in before]
    assert relevance(model, x, target, FlexComposite())[1].shape == (2, 1, 2, 6, 6)
