"""z^B where the image is padded, moved, scaled or resized before the first layer takes it."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from finite_differences import assert_agree, derivatives, gradients
from torch import Tensor, nn

from torch_bgdebias.isnet import ISNet, ISNetLoss

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
BOX = {"input_rule": "zbox", "mean": MEAN, "std": STD, "epsilon": 1e-6, "dual_target": "sum"}


def picture(normalised: bool = True) -> Tensor:
    x = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std if normalised else x


class Net(nn.Module):
    """Something before the first convolution, whose kernel is given."""

    def __init__(self, before=None, weight: Tensor | None = None, channels: int = 3, **geometry) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(channels, 5, 3, **geometry), nn.BatchNorm2d(5)
        self.body = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4))
        for values in (self.norm.weight, self.norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
        for values in (self.norm.bias, self.norm.running_mean, self.conv.bias):
            nn.init.normal_(values, generator=torch.Generator().manual_seed(2))
        if weight is not None:
            self.conv.weight.data = weight
        self.before = before
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.norm(self.conv(x if self.before is None else self.before(x))))


def relevance(net: nn.Module, variant: str, x: Tensor | None = None, **options) -> Tensor:
    return ISNet(net, variant, **{**BOX, **options}).explain(picture() if x is None else x).relevance


PLAIN = Net().conv.weight.detach().clone()

#: what stands before the layer, and the network with a layer that does the same at once
EXACT = {
    "padding": (lambda x: F.pad(x, (1, 1, 1, 1)), Net(padding=1)),
    "padding, step by step": (lambda x: F.pad(F.pad(x, (1, 0)), (0, 1, 1, 1), value=0.0), Net(padding=1)),
    "a cast": (lambda x: x.to(torch.float64).contiguous(memory_format=torch.channels_last), Net()),
    "channels in another order": (lambda x: x[:, [2, 1, 0]], Net(weight=PLAIN[:, [2, 1, 0]].clone())),
    "channels flipped": (lambda x: x.flip(1), Net(weight=PLAIN.flip(1))),
    "channels flipped by name": (lambda x: torch.flip(x, dims=[-3]), Net(weight=PLAIN.flip(1))),
    "channels flipped among others": (lambda x: x.flip(1, 2).flip((2,)), Net(weight=PLAIN.flip(1))),
    "channels rolled": (lambda x: torch.roll(x, 1, 1).roll(1, dims=(1,)), Net(weight=PLAIN.roll(-2, 1))),
    "channels selected": (
        lambda x: torch.index_select(x, 1, index=torch.tensor([2, 1, 0])), Net(weight=PLAIN[:, [2, 1, 0]].clone()),
    ),
    "channels one by one": (
        lambda x: torch.cat([x[:, 2].unsqueeze(1), x[:, 0:1], x[:, 1:2]], 1), Net(weight=PLAIN[:, [1, 2, 0]].clone()),
    ),
    "channels last and back": (lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), Net()),
    "split and joined": (lambda x: torch.cat(x.split(1, dim=1), 1), Net()),
    "flattened and back": (lambda x: x.flatten(1).view(-1, 3, 6, 8), Net()),
    "cropped and padded": (lambda x: F.pad(x[..., 0:, :], (1, 1, 1, 1), value=0), Net(padding=1)),
}  # fmt: skip


@pytest.mark.parametrize("variant", ["selective", "dual"])
@pytest.mark.parametrize("name", EXACT)
def test_it_is_as_if_the_layer_did_it(name, variant):
    before, at_once = EXACT[name]
    torch.testing.assert_close(relevance(Net(before), variant), relevance(at_once, variant))


def normalise(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, dtype=x.dtype).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def normalise_in_place(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, dtype=x.dtype).view(3, 1, 1) for values in (MEAN, STD))
    return x.clone().sub_(mean).div_(std)


def normalise_by_product(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, dtype=x.dtype).view(1, 3, 1, 1) for values in (MEAN, STD))
    return x * (1 / std) + (-mean / std)


@pytest.mark.parametrize("variant", ["selective", "dual"])
@pytest.mark.parametrize("how", [normalise, normalise_in_place, normalise_by_product])
@pytest.mark.parametrize("padded", [False, True])
def test_a_normalisation_inside_gives_the_heatmap_of_one_outside(how, variant, padded):
    before = (lambda x: F.pad(how(x), (1, 1, 1, 1))) if padded else how
    raw = {"mean": (0.0,), "std": (1.0,)}
    inside = relevance(Net(before), variant, picture(normalised=False), **raw)
    torch.testing.assert_close(inside, relevance(Net(padding=int(padded)), variant))


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_negative_scales_turn_the_box_over(variant):
    heatmap = relevance(Net(lambda x: 1 - 2 * -x), variant, picture(normalised=False), mean=None, std=None)
    turned = relevance(Net(lambda x: x * 2 + 1), variant, picture(normalised=False), mean=None, std=None)
    torch.testing.assert_close(heatmap, turned)
    flipped = relevance(Net(lambda x: -x), variant)
    expected = Net(weight=-PLAIN)
    torch.testing.assert_close(flipped, relevance(expected, variant))


def reference(net: Net, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """z^B of the first layer at what enters it, x~, in matrix products; and its relevance there."""
    weight = net.conv.weight * (net.norm.weight * (net.norm.running_var + net.norm.eps).rsqrt()).view(-1, 1, 1, 1)
    scale = net.norm.weight * (net.norm.running_var + net.norm.eps).rsqrt()
    bias = (net.conv.bias - net.norm.running_mean) * scale + net.norm.bias
    z = (F.conv2d(x, weight) + bias.view(-1, 1, 1)).detach().requires_grad_()
    logits = net.body(z)
    lowest = torch.log_softmax(logits, 1).amin(1)
    (gradient,) = torch.autograd.grad((lowest - torch.log1p(-lowest.exp())).sum(), z)
    columns, boxes = F.unfold(x, 3), [F.unfold(b.expand_as(x), 3) for b in (low, high)]
    matrix = weight.flatten(1)
    plus, minus = matrix.clamp(min=0), matrix.clamp(max=0)
    boxed = matrix @ columns + bias.clamp(min=0).view(1, -1, 1) - plus @ boxes[0] - minus @ boxes[1]
    share = (gradient * z).flatten(2) / (boxed + boxed.sign() * BOX["epsilon"])
    parts = columns * (matrix.T @ share) - boxes[0] * (plus.T @ share) - boxes[1] * (minus.T @ share)
    return F.fold(parts, x.shape[2:], 3)


def bounds() -> list[Tensor]:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    return [((edge - mean) / std).expand(1, 3, 6, 8) for edge in (0, 1)]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "area"])
def test_resizing_shares_relevance_out_in_proportion_to_the_weights(mode):
    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, (9, 7), mode=mode)

    net = Net(resize)
    heatmap = relevance(net, "selective")[:, 0]
    small = picture().requires_grad_()
    large = resize(small)
    at_large = reference(net, large.detach(), *(resize(bound) for bound in bounds()))
    (expected,) = torch.autograd.grad(large, small, at_large)
    torch.testing.assert_close(heatmap, expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(heatmap.sum((1, 2, 3)), at_large.sum((1, 2, 3)), rtol=1e-3, atol=1e-6)  # none is lost


def test_added_coordinates_have_the_box_of_what_they_are():
    grid = torch.linspace(-1, 1, 8, dtype=torch.float64).expand(2, 1, 6, 8)
    net = Net(lambda x: torch.cat([x, grid], 1), channels=4)
    heatmap = relevance(net, "selective")[:, 0]
    x = torch.cat([picture(), grid], 1)
    low, high = (torch.cat([bound, grid[:1]], 1) for bound in bounds())
    torch.testing.assert_close(heatmap, reference(net, x, low, high)[:, :3], rtol=1e-3, atol=1e-6)


class Learned(nn.Module):
    """A scale and a shift that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.2, -0.7, 0.9], dtype=torch.float64).view(1, 3, 1, 1))
        self.shift = nn.Parameter(torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x * self.scale + self.shift, (1, 1, 1, 1))


STEPS = {
    "padded": lambda x: F.pad(x, (0, 1, 0, 1)),
    "resized": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "learned": Learned(),
}


@pytest.mark.parametrize("variant", ["selective", "dual"])
@pytest.mark.parametrize("name", STEPS)
def test_heatmap_loss_s_gradients_are_finite_differences(name, variant):
    net = Net(STEPS[name])
    isnet, criterion = ISNet(net, variant, **{**BOX, "epsilon": 1e-2}), ISNetLoss((0.5, 3.0), mask_dilation=0)
    mask = torch.zeros(2, 1, 6, 8, dtype=torch.float64)
    mask[:, :, 2:5, 2:6] = 1

    def function() -> Tensor:
        return criterion(isnet.explain(picture()).relevance, mask)

    weights = [(n, p) for n, p in net.named_parameters() if variant != "dual" or not n.endswith(("bias", "shift"))]
    checks = derivatives(function, weights, gradients(function, net), steps=(1e-6, 1e-5, 1e-7), directions=2)
    assert_agree(checks, floor=1e-7)


NO_WAY = {
    "bicubic": lambda x: F.interpolate(x, (9, 9), mode="bicubic"),
    "a clamp": lambda x: x.clamp(-1, 1),
    "another batch order": lambda x: x[[1, 0]],
    "another batch order, selected": lambda x: x.index_select(-4, torch.tensor([1, 0])),
    "another batch order, flipped": lambda x: x.flip(1, 0).flip(1),
    "another batch order, rolled": lambda x: torch.roll(x, shifts=1, dims=0),
    "rolled as one row": lambda x: x.roll(1),
    "a product with itself": lambda x: x * x.mean(),
    "a division by itself": lambda x: 1 / (x + 10),
}


@pytest.mark.parametrize("name", NO_WAY)
def test_what_is_no_such_function_is_refused_or_explained_by_gradient_as_asked(name):
    net = Net(NO_WAY[name])
    with pytest.raises(RuntimeError, match="of Net takes the image itself, nor the image padded, moved, scaled or"):
        ISNet(net, **BOX).explain(picture())
    isnet = ISNet(net, mean=MEAN, std=STD, epsilon=1e-6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        heatmap, _ = (isnet.explain(picture()).relevance for _ in range(2))
    assert [("input x gradient" in str(w.message)) for w in caught] == [True]
    torch.testing.assert_close(heatmap, ISNet(net, epsilon=1e-6).explain(picture()).relevance)


def test_routes_keep_nothing_alive():
    class Marker:
        pass

    net = Net(lambda x: F.pad(normalise(x[:, [2, 1, 0]]), (1, 1, 1, 1)))
    gc.disable()
    try:
        with ISNet(net, **BOX).watching() as watch:
            logits = net(picture())
        marker = Marker()
        logits.grad_fn.metadata["marker"] = marker
        gone = weakref.ref(marker)
        explanation = watch.explain()
        del marker, logits, explanation, watch
        assert gone() is None
    finally:
        gc.enable()
