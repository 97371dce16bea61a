"""Watches in company: hooks, nested and parallel passes, calls within calls, broken ones, and layers by name."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from isnet_networks import Small
from torch import Tensor, nn

from torch_bgdebias import ISNet

VARIANTS = ["selective", "stochastic", "dual", "original"]


def summed(model: nn.Module, variant: str, **options) -> ISNet:
    """With the dual variant's sum of all logits, which is not drawn at random."""
    return ISNet(model, variant, dual_target="sum", **options)


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
    expected = explained(summed(model, variant, input_rule=rule), picture())
    names = [name for name, _ in model.named_children()][:4]
    relevance = explained(summed(model, variant, input_rule=rule, deep_supervision=names), picture())
    torch.testing.assert_close(relevance, expected)
    model.conv1.register_forward_hook(lambda _, __, out: out.clone())
    model.conv2.register_forward_hook(lambda _, __, out: out.clone(memory_format=torch.channels_last))
    model.fc.register_forward_hook(lambda _, __, out: out.to(torch.float32).double().clone())
    torch.testing.assert_close(
        explained(summed(model, variant, input_rule=rule), picture()), expected, rtol=1e-5, atol=1e-9
    )


def test_a_layer_before_batch_norm_has_the_relevance_of_the_two_in_the_dual_variant():
    model = Small().double()
    hidden_maps = summed(model, "dual", deep_supervision=["conv2", "bn2"]).explain(picture()).hidden
    torch.testing.assert_close(hidden_maps["conv2"], hidden_maps["bn2"])
    assert hidden_maps["bn2"].abs().sum() > 0


@pytest.mark.parametrize("rule", ["gradient", "zbox"])
@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_a_layer_with_a_shortcut_has_the_relevance_of_both_ways(variant, rule):
    """As where two layers with the same weights make the two; also with the shortcut alone."""

    class Shortcut(nn.Module):
        def __init__(self, twice: bool, scale: float) -> None:
            super().__init__()
            self.net, self.twice, self.scale = Small(), twice, scale
            self.same = nn.Conv2d(3, 4, 3, padding=1)
            self.same.load_state_dict(self.net.conv1.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            y = self.net.conv1(x)
            z = self.same(x) if self.twice else y
            z = z + self.scale * self.net.conv2(F.relu(self.net.bn1(y)))
            return self.net.fc((F.relu(z) + z).mean((2, 3)))

    for scale in (0.0, 1.0):
        one, two = (
            summed(Shortcut(twice, scale).double().eval(), variant, input_rule=rule, deep_supervision=names)
            for twice, names in ((False, ("net.conv1",)), (True, ("net.conv1", "same")))
        )
        explanation, expected = one.explain(picture()), two.explain(picture())
        torch.testing.assert_close(explanation.relevance, expected.relevance)
        assert explanation.relevance.abs().sum() > 0
        torch.testing.assert_close(explanation.hidden["net.conv1"], sum(expected.hidden.values()))


@pytest.mark.parametrize("epsilon", [0.0, 1e-10])
def test_a_layer_whose_output_goes_to_a_relu_and_elsewhere_under_zbox(epsilon):
    """Without a stabiliser nothing is to be given back to the ReLU: the two must be near each other."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Small()

        def forward(self, x: Tensor) -> Tensor:
            y = self.net.conv1(x)
            return self.net.fc((self.net.conv2(F.relu(y)) + y).mean((2, 3)))

    net = Both().double()
    relevance = ISNet(net, input_rule="zbox", epsilon=epsilon).explain(picture()).relevance
    torch.testing.assert_close(relevance, ISNet(net, input_rule="zbox", epsilon=1e-9).explain(picture()).relevance)


def test_the_inner_network_s_relevance_trains_what_comes_before_it():
    model, x = Outer().double().eval(), picture()
    outer, inner = ISNet(nn.Sequential(nn.Conv2d(3, 3, 1).double(), model)), ISNet(model)
    gradients = []
    for both in (True, False):
        with inner.watching() as b:
            if both:
                with outer.watching():
                    outer.model(x)
            else:
                outer.model(x)
        weight = outer.model[0].weight
        gradients.append(torch.autograd.grad(b.explain(create_graph=True).relevance.square().sum(), weight)[0])
    torch.testing.assert_close(*gradients)


def test_an_image_that_changes_after_the_call_is_explained_as_it_was():
    isnet = ISNet(Small().double().eval())
    for wanted in (False, True):
        x = picture().requires_grad_(wanted)
        expected = isnet.explain(x.detach().clone()).relevance
        with isnet.watching() as watch:
            isnet.model(x)
        with torch.no_grad():
            x.zero_()
        torch.testing.assert_close(watch.explain().relevance, expected)


def test_an_explanation_within_an_explained_forward_pass_is_its_own():
    class Looking(Small):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            seen.append(self.other.explain(logits.detach().view(4, 1, 1, 5)).relevance)
            return logits

    seen: list[Tensor] = []
    model = Looking().double().eval()
    model.other = ISNet(nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten()).double(), "dual", input_rule="zbox")
    expected = explained(ISNet(Small().double().eval()), picture())
    torch.testing.assert_close(explained(ISNet(model), picture()), expected)
    alone = model.other.explain(Small().double().eval()(picture()).detach().view(4, 1, 1, 5)).relevance
    torch.testing.assert_close(seen[0], alone)


@pytest.mark.parametrize("end", [nn.Flatten(), nn.Unflatten(1, (1, 5)), nn.Identity()])
def test_the_output_layer_is_known_behind_copies_and_reshapes(end):
    model = Small().double().eval()

    def logits(output: Tensor) -> Tensor:
        return output.float().double().clone().flatten(1)

    relevance = explained(summed(nn.Sequential(model, end), "dual", logits=logits), picture())
    torch.testing.assert_close(relevance, explained(summed(model, "dual"), picture()), rtol=1e-5, atol=1e-8)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.gain = Small(), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain(torch.tanh(self.net(x * 2 - 1)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_watches_of_a_network_and_of_one_inside_it(variant):
    model, x = Outer().double().eval(), picture()
    outer, inner = summed(model, variant, deep_supervision=["net.bn2"]), summed(model.net, variant)
    with outer.watching() as a, inner.watching() as b, inner.watching() as c:
        model(x)
    assert (len(a), len(b), len(c)) == (1, 1, 1)
    explanations = [w.explain(create_graph=False, generator=torch.Generator().manual_seed(3)) for w in (b, a, c)]
    torch.testing.assert_close(explanations[0].relevance, explained(inner, x * 2 - 1))
    torch.testing.assert_close(explanations[2].relevance, explanations[0].relevance)
    torch.testing.assert_close(explanations[1].relevance, explained(outer, x))
    assert explanations[1].hidden["net.bn2"].abs().sum() > 0


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
    torch.testing.assert_close(
        explained(summed(model, variant), picture()), explained(summed(once, variant), picture())
    )


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
    by_thread: dict[int, Tensor] = {}
    start = threading.Barrier(len(images))

    def work(i: int) -> None:
        start.wait()
        for _ in range(10):
            by_thread[i] = isnet.explain(images[i]).relevance

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(expected):
        torch.testing.assert_close(by_thread[i], result.relevance)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_hidden_maps_of_transformers():
    """Swin's maps have their channels last; a ViT's tokens are patches after a class token."""
    models = pytest.importorskip("torchvision").models
    x = torch.rand(2, 3, 64, 64)
    swin = ISNet(models.swin_t(num_classes=4).eval(), deep_supervision=["features.3"]).explain(x).hidden["features.3"]
    assert swin.shape == (2, 1, 192, 8, 8)
    vit = models.vit_b_32(num_classes=4, image_size=64).eval()
    explanation = ISNet(vit, "original", deep_supervision=["encoder.layers.encoder_layer_3", "conv_proj"]).explain(x)
    assert explanation.hidden["encoder.layers.encoder_layer_3"].shape == (2, 4, 768, 2, 2)
    assert explanation.hidden["conv_proj"].shape == (2, 4, 768, 2, 2)


def test_hidden_maps_of_convolutions_are_never_turned():
    for conv, size in ((nn.Conv2d(3, 20, 5), (40, 64)), (nn.Conv2d(3, 32, 3, padding=1, stride=(1, 2)), (32, 32))):
        net = nn.Sequential(nn.Sequential(conv, nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        x = torch.rand(2, 3, *size)
        hidden_maps = ISNet(net, deep_supervision=["0", "0.0"]).explain(x).hidden
        assert hidden_maps["0"].shape[2:] == hidden_maps["0.0"].shape[2:] == conv(x).shape[1:]


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
    softmax, cut = " in the relevance pass, in which attention weights and all other softmaxes", ": a part of the model"
    ending = softmax if kind == "softmax" else cut
    with pytest.raises(RuntimeError, match="no gradient path from the model's output to the image" + ending):
        ISNet(Weights(kind).double()).explain(picture())
