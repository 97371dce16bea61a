"""Watches in company: hooks, nested and parallel passes, calls within calls, broken ones, and layers by name."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias import ISNet

VARIANTS = ["selective", "stochastic", "dual", "original"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        for norm in (self.bn1, self.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(F.relu(self.bn2(self.conv2(x)), inplace=True).mean((2, 3)))


def picture(side: int = 6) -> Tensor:
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def explained(isnet: ISNet, x: Tensor) -> Tensor:
    return isnet.explain(x, generator=torch.Generator().manual_seed(3)).relevance


@pytest.mark.parametrize("rule", ["gradient", "zbox"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_looking_at_a_layer_does_not_change_the_heatmaps(variant, train, rule):
    """Layers by name, and hooks of the user's that return copies, also of another layout or dtype and back."""
    model = Small().double().train(train)
    expected = explained(ISNet(model, variant, input_rule=rule), picture())
    names = [name for name, _ in model.named_children()][:4]
    found = explained(ISNet(model, variant, input_rule=rule, deep_supervision=names), picture())
    torch.testing.assert_close(found, expected)
    model.conv1.register_forward_hook(lambda _, __, out: out.clone())
    model.conv2.register_forward_hook(lambda _, __, out: out.clone(memory_format=torch.channels_last))
    model.fc.register_forward_hook(lambda _, __, out: out.to(torch.float32).double().clone())
    torch.testing.assert_close(
        explained(ISNet(model, variant, input_rule=rule), picture()), expected, rtol=1e-5, atol=1e-9
    )


def test_a_layer_before_batch_norm_has_the_relevance_of_the_two_in_the_dual_variant():
    model = Small().double()
    found = ISNet(model, "dual", deep_supervision=["conv2", "bn2"]).explain(picture()).hidden
    torch.testing.assert_close(found["conv2"], found["bn2"])
    assert found["bn2"].abs().sum() > 0


@pytest.mark.parametrize("end", [nn.Flatten(), nn.Unflatten(1, (1, 5)), nn.Identity()])
def test_the_output_layer_is_known_behind_copies_and_reshapes(end):
    model = Small().double().eval()

    def logits(output: Tensor) -> Tensor:
        return output.float().double().clone().flatten(1)

    found = explained(ISNet(nn.Sequential(model, end), "dual", logits=logits), picture())
    torch.testing.assert_close(found, explained(ISNet(model, "dual"), picture()), rtol=1e-5, atol=1e-8)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.gain = Small(), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain(torch.tanh(self.net(x * 2 - 1)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_watches_of_a_network_and_of_one_inside_it(variant):
    model, x = Outer().double().eval(), picture()
    outer, inner = ISNet(model, variant, deep_supervision=["net.bn2"]), ISNet(model.net, variant)
    with outer.watching() as a, inner.watching() as b, inner.watching() as c:
        model(x)
    assert (len(a), len(b), len(c)) == (1, 1, 1)
    found = [w.explain(create_graph=False, generator=torch.Generator().manual_seed(3)) for w in (b, a, c)]
    torch.testing.assert_close(found[0].relevance, explained(inner, x * 2 - 1))
    torch.testing.assert_close(found[2].relevance, found[0].relevance)
    torch.testing.assert_close(found[1].relevance, explained(outer, x))
    assert found[1].hidden["net.bn2"].abs().sum() > 0


def test_watches_of_one_forward_pass_have_to_agree():
    model = Outer().double()
    for options in ({"epsilon": 0.1}, {"variant": "dual"}, {"attribution": "gradient"}, {"input_rule": "zbox"}):
        with ISNet(model).watching() as outer, ISNet(model.net, **options).watching():
            with pytest.raises(RuntimeError, match=r"Small is called in a forward pass that is explained already"):
                model(picture())
            assert len(outer) == 0
    assert torch.overrides._get_current_function_mode_stack() == []
    with ISNet(model, "original").watching() as a, ISNet(model, "selective", selective_eps=1e-2).watching() as b:
        model(picture())
    assert a.explain().relevance.shape[1] == 5
    assert b.explain().relevance.shape[1] == 1


class Again(nn.Module):
    """A model that calls itself, on the image and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Small()

    def forward(self, x: Tensor, mirrored: bool = False) -> Tensor:
        return self.net(x) if mirrored else F.relu(self.net(x)) + self(x.flip(3), mirrored=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_that_calls_itself_is_one_forward_pass(variant):
    model = Again().double().eval()

    def plainly(x: Tensor) -> Tensor:
        return F.relu(model.net(x)) + model.net(x.flip(3))

    class Once(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return plainly(x)

    once = Once()
    once.net = model.net
    torch.testing.assert_close(explained(ISNet(model, variant), picture()), explained(ISNet(once, variant), picture()))


def test_a_retry_after_a_failure_is_what_is_explained():
    model, x = Small().double().eval(), picture()
    isnet = ISNet(model)
    with isnet.watching() as watch:
        with pytest.raises(RuntimeError, match="expected input"):
            model(torch.cat([x, x], 1))
        assert len(watch) == 0
        assert torch.overrides._get_current_function_mode_stack() == []
        model(x[:2])
    torch.testing.assert_close(watch.explain().relevance, isnet.explain(x[:2]).relevance)


def test_threads_explain_at_the_same_time():
    model, images = Small().double().eval(), [picture() * k for k in (0.25, 0.5, 0.75, 1)]
    isnet = ISNet(model, deep_supervision=["bn2"])
    expected = [isnet.explain(image) for image in images]
    found: dict[int, Tensor] = {}
    start = threading.Barrier(len(images))

    def work(i: int) -> None:
        start.wait()
        for _ in range(10):
            found[i] = isnet.explain(images[i]).relevance

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(expected):
        torch.testing.assert_close(found[i], result.relevance)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_hidden_maps_of_transformers():
    """Swin's maps have their channels last; a ViT's tokens are patches after a class token."""
    models = pytest.importorskip("torchvision").models
    x = torch.rand(2, 3, 64, 64)
    swin = ISNet(models.swin_t(num_classes=4).eval(), deep_supervision=["features.3"]).explain(x).hidden["features.3"]
    assert swin.shape == (2, 1, 192, 8, 8)
    vit = models.vit_b_32(num_classes=4, image_size=64).eval()
    found = ISNet(vit, "original", deep_supervision=["encoder.layers.encoder_layer_3", "conv_proj"]).explain(x)
    assert found.hidden["encoder.layers.encoder_layer_3"].shape == (2, 4, 768, 2, 2)
    assert found.hidden["conv_proj"].shape == (2, 4, 768, 2, 2)


class Odd(nn.Module):
    """Layers that run twice, never, without gradients, and one that returns a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.cut, self.fc = nn.ReLU(), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = self.cut(x)
        return self.fc((self.twice(x) - self.twice(-x) + shift).mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("twice", r"layer 'twice' is called twice in a forward pass"),
        ("never", r"layers \['never'\] did not run in the forward pass"),
        ("cut", r"layer 'cut' returned something that no gradient leads through"),
        ("fc", r"layer 'fc' must return maps \(B, c, h, w\) or tokens \(B, N, c\), got \(4, 5\)"),
    ],
)
def test_layers_that_have_no_map_are_named(name, text):
    with pytest.raises(ValueError, match="deep_supervision: " + text):
        ISNet(Odd().double(), deep_supervision=[name]).explain(picture())


class Weights(nn.Module):
    """Its output hangs on the image by a softmax alone, by nothing at all, or by nothing that is differentiable."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        mean = {"softmax": mean.softmax(1), "detached": mean.detach(), "rounded": (mean > 0.5).to(mean)}[self.kind]
        return self.fc(mean)


@pytest.mark.parametrize("kind", ["softmax", "detached", "rounded"])
def test_a_path_that_is_missing_is_told_from_one_that_softmax_ends(kind):
    ending = " in the relevance pass, in which attention weights and all other softmaxes" if kind == "softmax" else "$"
    with pytest.raises(RuntimeError, match="no gradient path from the model's output to the image" + ending):
        ISNet(Weights(kind).double()).explain(picture())
