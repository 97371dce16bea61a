"""LRP-Flex on small networks of every kind: the rules themselves, true gradients, nothing left behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from finite_differences import Derivative, assert_agree, derivatives, gradients
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from torch_bgdebias import ISNet
from torch_bgdebias.lrp.engine import FlexPass

DOUBLE = torch.float64


def conv(inputs: int = 3, outputs: int = 4, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """Squeeze and excitation, as in MobileNetV3."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.conv, self.down, self.up, self.gate = conv(), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Attention(nn.Module):
    """Tokens through multi-head attention, one of several ways to write it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Conv2d(3, 4, 2, 2)
        self.norm = nn.LayerNorm(4)
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True)
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        if self.kind == "module":
            return tokens + self.mha(tokens, tokens, tokens)[0]
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(tokens).chunk(3, -1))
        if self.kind == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "causal":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        elif self.kind == "masked":
            mask = torch.eye(q.shape[-2], dtype=torch.bool) | (torch.arange(q.shape[-2]) % 2 == 0)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            out = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        return tokens + out.transpose(1, 2).flatten(2)


class Reused(nn.Module):
    """One convolution and one in-place ReLU, three times, with a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = conv(3, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            y = self.conv(x)
            y += x
            x = self.relu(y)
        return x


class Residual(nn.Module):
    """A branch that may be dropped, as in ConvNeXt or EfficientNet."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.conv, self.drop = conv(4, 4), drop

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(F.relu(self.conv(x)))


class Dense(nn.Module):
    """Concatenation, with batch norm before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), conv()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


BODIES = {
    "relu": lambda: seq(conv(), nn.ReLU()),
    "relu-inplace": lambda: seq(conv(), nn.ReLU(inplace=True)),
    "relu-statement": lambda: seq(conv(), Lambda(lambda x: (F.relu_(x), x)[1])),
    "relu6": lambda: seq(conv(), Lambda(lambda x: 4 * x), nn.ReLU6(inplace=True)),
    "hardtanh": lambda: seq(conv(), nn.Hardtanh(0, 0.5)),
    "clamp": lambda: seq(conv(), Lambda(lambda x: x.clamp(min=0).clamp_(0, 0.7))),
    "leaky": lambda: seq(conv(), nn.LeakyReLU(0.1), conv(4, 4), nn.PReLU()),
    "gelu": lambda: seq(conv(), nn.GELU(), conv(4, 4), nn.GELU(approximate="tanh")),
    "silu": lambda: seq(conv(), nn.SiLU(inplace=True), conv(4, 4), nn.Mish()),
    "hardswish": lambda: seq(conv(), nn.Hardswish(inplace=True), Lambda(lambda x: 3 * x), nn.Hardswish()),
    "elu": lambda: seq(conv(), nn.ELU(0.7, inplace=True), conv(4, 4), nn.SELU(), conv(4, 4), nn.CELU(0.5)),
    "tanh": lambda: seq(conv(), nn.Tanh(), conv(4, 4), Lambda(torch.tanh), nn.Softsign()),
    "sigmoid": lambda: seq(conv(), nn.Sigmoid(), conv(4, 4), nn.Softplus()),
    "batchnorm": lambda: seq(conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    "batchnorm-plain": lambda: seq(conv(), nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.ReLU()),
    "groupnorm": lambda: seq(conv(), nn.GroupNorm(2, 4), nn.ReLU()),
    "instancenorm": lambda: seq(conv(), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU()),
    "layernorm": lambda: seq(conv(), nn.LayerNorm([4, 6, 6]), nn.GELU()),
    "rmsnorm": lambda: seq(conv(), nn.RMSNorm([6, 6]), nn.GELU()),
    "grouped": lambda: seq(conv(3, 6, groups=3), nn.ReLU(), conv(6, 4, groups=2, dilation=1)),
    "depthwise": lambda: seq(conv(3, 3, groups=3, bias=False), nn.ReLU6(), nn.Conv2d(3, 4, 1)),
    "same": lambda: seq(nn.Conv2d(3, 4, 2, padding="same", dilation=3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding="valid")),
    "transposed": lambda: seq(conv(), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2)),
    "circular": lambda: seq(conv(padding_mode="circular"), nn.ReLU()),
    "se-sigmoid": lambda: Gated(nn.Sigmoid()),
    "se-hardsigmoid": lambda: Gated(nn.Hardsigmoid(inplace=True)),
    "attention-module": lambda: Attention("module"),
    "attention-sdpa": lambda: Attention("sdpa"),
    "attention-causal": lambda: Attention("causal"),
    "attention-masked": lambda: Attention("masked"),
    "attention-written": lambda: Attention("written"),
    "reused": Reused,
    "dense": Dense,
    "maxpool": lambda: seq(conv(), nn.ReLU(), nn.MaxPool2d(2)),
    "avgpool": lambda: seq(conv(), nn.ReLU(), nn.AvgPool2d(3, 2, 1)),
    "adaptive": lambda: seq(conv(), nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(2)),
    "pool-options": lambda: seq(
        conv(), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)
    ),
    "pool-1d": lambda: seq(conv(), Lambda(lambda x: F.avg_pool1d(F.max_pool1d(x.flatten(2), 2), 3))),
    "pool-3d": lambda: seq(conv(), Lambda(lambda x: F.avg_pool3d(F.max_pool3d(x[:, None], 2), (1, 3, 1)))),
    "pool-global": lambda: seq(
        conv(), Lambda(lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3)), x.flatten(2).logsumexp(2)], 1))
    ),
    "gem": lambda: seq(conv(), Lambda(lambda x: F.avg_pool2d(x.clamp(min=1e-2).pow(3), 2).pow(1 / 3))),
    "fractional": lambda: seq(conv(), nn.ReLU(), nn.FractionalMaxPool2d(2, output_size=3)),
    "unpooled": lambda: seq(conv(), Lambda(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))),
    "lppool": lambda: seq(conv(), nn.Softplus(), nn.LPPool2d(2, 2)),
    "dropout": lambda: seq(conv(), nn.ReLU(), nn.Dropout2d(0.3), conv(4, 4), nn.Dropout(0.3)),
    "stochastic-depth": lambda: seq(
        conv(), *(Residual(StochasticDepth(p, m)) for p, m in ((0.5, "row"), (0.1, "batch")))
    ),
    "interpolated": lambda: seq(conv(), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear")),
    "shuffled": lambda: seq(conv(), nn.ChannelShuffle(2), nn.ReLU()),
    "unfolded": lambda: seq(conv(), nn.ReLU(), nn.Unfold(3)),
    "einsum": lambda: seq(conv(), Lambda(lambda x: torch.einsum("bchw,bdhw->bcd", x.relu(), x))),
}
#: networks without any bias, whose relevance is conserved
HOMOGENEOUS = {
    "relu": lambda: seq(conv(bias=False), nn.ReLU(inplace=True), conv(4, 4, bias=False), nn.ReLU()),
    "pooled": lambda: seq(conv(bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2)),
    "gelu": lambda: seq(conv(bias=False), nn.GELU(), conv(4, 4, bias=False), nn.SiLU(), nn.Hardswish(), nn.Mish()),
    "smooth": lambda: seq(conv(bias=False), nn.Tanh(), nn.ELU(), nn.SELU(), nn.CELU(2.0), nn.Softsign()),
    "rmsnorm": lambda: seq(conv(bias=False), nn.RMSNorm([6, 6]), nn.GELU()),
    "leaky": lambda: seq(conv(bias=False), nn.LeakyReLU(), nn.PReLU()),
}


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
        found = isnet.explain(x, torch.tensor([2, 0]))
        return (found.relevance * weights[:, None]).sum() + found.logits.logsumexp(1).sum()

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
    found = ISNet(model).explain(x)
    torch.testing.assert_close(found.logits, expected)
    again = torch.autograd.grad(found.logits.square().sum(), list(model.parameters()), allow_unused=True)
    for a, b in zip(grads, again, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, after[key])


@pytest.mark.parametrize("body", HOMOGENEOUS)
def test_relevance_is_conserved_without_biases(body):
    net, x = network(HOMOGENEOUS[body], bias=False), image()
    found = ISNet(net, epsilon=0.0).explain(x, torch.tensor([1, 2]))
    torch.testing.assert_close(
        found.relevance.sum((1, 2, 3, 4)), found.logits.gather(1, torch.tensor([[1], [2]]))[:, 0]
    )


@pytest.mark.parametrize("body", ["relu", "relu-inplace", "relu6", "hardtanh", "clamp", "maxpool", "reused", "grouped"])
def test_relu_networks_without_epsilon_are_input_times_gradient(body):
    model, x = network(BODIES[body]), image().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    found = ISNet(model, epsilon=0.0).explain(x.detach(), lambda logits: logits.logsumexp(1))
    torch.testing.assert_close(found.relevance[:, 0], (x * gradient).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("body", ["gelu", "batchnorm", "attention-sdpa", "relu"])
def test_gradient_attribution_is_input_times_gradient(body):
    model, x = network(BODIES[body]), image().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    found = ISNet(model, attribution="gradient").explain(x.detach(), lambda logits: logits.logsumexp(1))
    torch.testing.assert_close(found.relevance[:, 0], (x * gradient).detach(), rtol=1e-9, atol=1e-12)


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
    found = ISNet(net, epsilon=0.05).explain(x, torch.tensor([1, 1]))
    torch.testing.assert_close(found.relevance[:, 0].detach(), slow(net, x, 0.05, constants))


def test_batch_statistics_are_constants_only_when_linear():
    net, x = network(BODIES["batchnorm"], train=True), image()
    linear, exact = (ISNet(net, batch_norm=kind).explain(x).relevance for kind in ("linear", "exact"))
    assert not torch.allclose(linear, exact, rtol=1e-2)
    net.eval()
    linear, exact = (ISNet(net, batch_norm=kind).explain(x).relevance for kind in ("linear", "exact"))
    torch.testing.assert_close(linear, exact)


def test_attention_weights_and_queries_get_no_relevance_but_gradients():
    net, x = network(BODIES["attention-sdpa"]), image()
    found = ISNet(net).explain(x, torch.tensor([0, 1]))
    found.relevance.square().sum().backward()
    query = net.body.qkv.weight.grad[:4]
    assert float(query.abs().max()) > 0  # relevance depends on the attention weights, and so on the queries


def test_ordinary_second_derivatives_are_untouched():
    net, x = network(BODIES["batchnorm"], train=True), image().requires_grad_()
    (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    expected = torch.autograd.grad(g.square().sum(), list(net.parameters()), allow_unused=True)
    with FlexPass(1e-2) as _:
        y = net(x)
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    found = torch.autograd.grad(g.square().sum(), list(net.parameters()), allow_unused=True)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_kept_alive():
    class Marker:
        pass

    isnet = ISNet(network(BODIES["batchnorm"], train=True), deep_supervision=["body.2"], input_rule="zbox")
    gc.disable()  # reference counting alone must do: the collector cannot see through autograd's graph
    try:
        for variant in ("selective", "dual"):
            isnet.variant = variant
            with isnet.watching() as watch:
                logits = isnet.model(image())
            marker = Marker()
            logits.grad_fn.metadata["marker"] = marker
            alive = weakref.ref(marker)
            found = watch.explain()
            (found.relevance.sum() + found.logits.sum()).backward()
            del marker, found, logits, watch
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
    found = ISNet(model, epsilon=0.1).explain(x)
    model[1] = Lambda(known)
    expected = ISNet(model, epsilon=0.1).explain(x)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.relevance, expected.relevance)
    model[1] = nn.Identity()
    assert not torch.allclose(ISNet(model, epsilon=0.1).explain(x).relevance, expected.relevance)
