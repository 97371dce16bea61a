"""LRP-Flex on small networks of every kind: the rules themselves, true gradients, nothing left behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from finite_differences import Derivative, assert_agree, derivatives, gradients
from lrp_bodies import BODIES, HOMOGENEOUS, Lambda, conv, seq
from torch import Tensor, nn

from torch_bgdebias import ISNet
from torch_bgdebias.lrp.engine import FlexPass

DOUBLE = torch.float64


class Net(nn.Module):
    def __init__(self, body: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.body = body
        with torch.no_grad():
            size = body.eval()(torch.rand(2, 3, 6, 6)).flatten(1).shape[1]
        self.head = nn.Linear(size, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def network(body, *, bias: bool = True, train: bool = False) -> nn.Module:
    torch.manual_seed(0)
    net = Net(body(), bias).to(DOUBLE)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.train(train)


def image() -> Tensor:
    return torch.rand(2, 3, 6, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


def differences(isnet: ISNet, x: Tensor) -> list[Derivative]:
    """Every parameter's directional derivative of relevance and logits, by autograd and by central differences."""
    weights = torch.randn(2, 3, 6, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(6))

    def function() -> Tensor:
        torch.manual_seed(1)
        explanation = isnet.explain(x, torch.tensor([2, 0]))
        return (explanation.relevance * weights[:, None]).sum() + explanation.logits.logsumexp(1).sum()

    grads = gradients(function, isnet.model)
    return derivatives(function, isnet.model.named_parameters(), grads, steps=(1e-6, 1e-7, 1e-5))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("body", BODIES)
def test_gradient_is_finite_difference(body, train):
    isnet = ISNet(network(BODIES[body], train=train))
    assert_agree(differences(isnet, image()), floor=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_norm": "exact"},
        {"epsilon": 0.0},
        {"input_rule": "zbox", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)},
        {"attribution": "gradient"},
        {"selective_eps": 1e-2},
    ],
    ids=str,
)
@pytest.mark.parametrize("body", ["batchnorm", "relu-inplace", "attention-sdpa"])
def test_gradient_is_finite_difference_with_options(body, options):
    assert_agree(differences(ISNet(network(BODIES[body], train=True), **options), image()), floor=1e-7)


@pytest.mark.parametrize("body", BODIES)
def test_logits_and_their_gradients_are_the_models_own(body):
    model, x = network(BODIES[body], train=True), image()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    expected = model(x)
    grads = torch.autograd.grad(expected.square().sum(), list(model.parameters()), allow_unused=True)
    after = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    torch.manual_seed(1)
    explanation = ISNet(model).explain(x)
    torch.testing.assert_close(explanation.logits, expected)
    again = torch.autograd.grad(explanation.logits.square().sum(), list(model.parameters()), allow_unused=True)
    for a, b in zip(grads, again, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, after[key])


@pytest.mark.parametrize("body", HOMOGENEOUS)
def test_relevance_is_conserved_without_biases(body):
    net, x = network(HOMOGENEOUS[body], bias=False), image()
    explanation = ISNet(net, epsilon=0.0).explain(x, torch.tensor([1, 2]))
    torch.testing.assert_close(
        explanation.relevance.sum((1, 2, 3, 4)), explanation.logits.gather(1, torch.tensor([[1], [2]]))[:, 0]
    )


@pytest.mark.parametrize("body", ["relu", "relu-inplace", "relu6", "hardtanh", "clamp", "maxpool", "reused", "grouped"])
def test_relu_networks_without_epsilon_are_input_times_gradient(body):
    model, x = network(BODIES[body]), image().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    explanation = ISNet(model, epsilon=0.0).explain(x.detach(), lambda logits: logits.logsumexp(1))
    torch.testing.assert_close(explanation.relevance[:, 0], (x * gradient).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("body", ["gelu", "batchnorm", "attention-sdpa", "relu"])
def test_gradient_attribution_is_input_times_gradient(body):
    model, x = network(BODIES[body]), image().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    explanation = ISNet(model, attribution="gradient").explain(x.detach(), lambda logits: logits.logsumexp(1))
    torch.testing.assert_close(explanation.relevance[:, 0], (x * gradient).detach(), rtol=1e-9, atol=1e-12)


def slow(net: nn.Module, x: Tensor, epsilon: float, constants) -> Tensor:
    """The rules again, from the paper: operations replaced one by one by what their relevance pass differentiates."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(constants(net, x, epsilon)[:, 1].sum(), x)
    return (x * gradient).detach()


def test_rules_against_a_slow_reading_of_the_paper():
    def relu(z: Tensor, epsilon: float) -> Tensor:
        a = z.relu().detach()
        return a + (z - z.detach()) * (a / (a + epsilon))

    def constants(net: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        first, norm, second = net.body[0], net.body[1], net.body[3]
        z = first(x)
        mean, var = z.mean((0, 2, 3), keepdim=True).detach(), z.var((0, 2, 3), correction=0, keepdim=True).detach()
        z = (z - mean) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        z = second(relu(z, epsilon))
        z = z * (0.5 * (1 + torch.erf(z / 2**0.5))).detach()
        mean = z.mean((1, 2, 3), keepdim=True).detach()
        z = (z - mean) / (z.var((1, 2, 3), correction=0, keepdim=True).detach() + 1e-5).sqrt()
        return net.head(z.flatten(1))

    def body() -> nn.Module:
        return seq(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4), nn.GELU(), nn.LayerNorm([4, 6, 6]))

    net, x = network(body, train=True), image()
    explanation = ISNet(net, epsilon=0.05).explain(x, torch.tensor([1, 1]))
    torch.testing.assert_close(explanation.relevance[:, 0].detach(), slow(net, x, 0.05, constants))


def test_batch_statistics_are_constants_only_when_linear():
    net, x = network(BODIES["batchnorm"], train=True), image()
    linear, exact = (ISNet(net, batch_norm=kind).explain(x).relevance for kind in ("linear", "exact"))
    assert not torch.allclose(linear, exact, rtol=1e-2)
    net.eval()
    linear, exact = (ISNet(net, batch_norm=kind).explain(x).relevance for kind in ("linear", "exact"))
    torch.testing.assert_close(linear, exact)


def test_attention_weights_and_queries_get_no_relevance_but_gradients():
    net, x = network(BODIES["attention-sdpa"]), image()
    explanation = ISNet(net).explain(x, torch.tensor([0, 1]))
    explanation.relevance.square().sum().backward()
    query = net.body.qkv.weight.grad[:4]
    assert float(query.abs().max()) > 0  # relevance depends on the attention weights, and so on the queries


def test_ordinary_second_derivatives_are_untouched():
    net, x = network(BODIES["batchnorm"], train=True), image().requires_grad_()
    (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    expected = torch.autograd.grad(g.square().sum(), list(net.parameters()), allow_unused=True)
    with FlexPass(1e-2) as _:
        y = net(x)
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    gradients = torch.autograd.grad(g.square().sum(), list(net.parameters()), allow_unused=True)
    for a, b in zip(expected, gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_kept_alive():
    class Marker:
        pass

    net = network(BODIES["batchnorm"], train=True)
    gc.disable()  # reference counting alone must do: the collector cannot see through autograd's graph
    try:
        for variant in ("selective", "dual"):
            isnet = ISNet(net, variant, deep_supervision=["body.2"], input_rule="zbox")
            with isnet.watching() as watch:
                logits = isnet.model(image())
            marker = Marker()
            logits.grad_fn.metadata["marker"] = marker
            alive = weakref.ref(marker)
            explanation = watch.explain()
            (explanation.relevance.sum() + explanation.logits.sum()).backward()
            del marker, explanation, logits, watch
            assert alive() is None, variant
    finally:
        gc.enable()


def test_other_threads_do_not_notice():
    import threading

    seen: list[int] = []
    model = network(BODIES["relu"])
    with FlexPass(1e-2):
        thread = threading.Thread(target=lambda: seen.append(len(torch.overrides._get_current_function_mode_stack())))
        thread.start()
        thread.join()
        model(image().requires_grad_())
    assert seen == [0]


#: other spellings of an activation, and the one that has a test of its own
SPELLINGS = {
    "hardtanh_": (lambda x: F.hardtanh_(x * 1, 0.0, 0.5), lambda x: F.hardtanh(x, 0.0, 0.5)),
    "threshold": (lambda x: torch.threshold(x, 0, 0), F.relu),
    "threshold_": (lambda x: F.threshold_(x * 1, 0, 0), F.relu),
    "elu_": (lambda x: F.elu_(x * 1, 0.7), lambda x: F.elu(x, 0.7)),
    "softmin": (lambda x: F.softmin(x, 1) * x, lambda x: F.softmax(-x, 1) * x),
    "special": (lambda x: torch.special.softmax(x, 1) * x, lambda x: F.softmax(x, 1) * x),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings_have_the_same_rule(name):
    written, known = SPELLINGS[name]
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    torch.manual_seed(0)
    model = seq(conv(), Lambda(written), nn.Flatten(), nn.Linear(144, 5)).double()
    explanation = ISNet(model, epsilon=0.1).explain(x)
    model[1] = Lambda(known)
    expected = ISNet(model, epsilon=0.1).explain(x)
    torch.testing.assert_close(explanation.logits, expected.logits)
    torch.testing.assert_close(explanation.relevance, expected.relevance)
    model[1] = nn.Identity()
    assert not torch.allclose(ISNet(model, epsilon=0.1).explain(x).relevance, expected.relevance)
