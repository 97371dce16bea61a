from __future__ import annotations

import hostile
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from torch_bgdebias.attribution import find_map_layer, grad_cam
from torch_bgdebias.models import as_map


@pytest.mark.parametrize("positive", [True, False])
def test_agrees_with_captum(positive):
    captum = pytest.importorskip("captum.attr", reason="captum is the oracle")
    torch.manual_seed(0)
    model, image = torchvision.models.resnet18(num_classes=4).eval(), torch.rand(3, 3, 64, 96)
    target = torch.tensor([0, 3, 1])
    attribution = grad_cam(model, image, target, layer="layer3", positive=positive)
    oracle = captum.LayerGradCam(model, model.layer3)
    expected = oracle.attribute(image, target, relu_attributions=positive)
    expected = captum.LayerAttribution.interpolate(expected, (64, 96), "bilinear")
    assert attribution.shape == (3, 1, 64, 96)
    assert torch.allclose(attribution, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "size", "layer"),
    [
        (lambda: torchvision.models.resnet18(num_classes=3), 64, "layer4"),
        (lambda: torchvision.models.densenet121(num_classes=3), 64, "features"),
        (lambda: torchvision.models.mobilenet_v3_small(num_classes=3), 64, "features"),
        (lambda: torchvision.models.swin_t(num_classes=3), 64, "permute"),
        (lambda: torchvision.models.vit_b_16(num_classes=3, image_size=64), 64, "encoder.layers.encoder_layer_11.ln_1"),
        (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64), 64, "blocks.11.norm1"),
        (lambda: timm.create_model("convnext_atto", num_classes=3), 64, "stages"),
    ],
)
def test_finds_the_last_map(build, size, layer):
    torch.manual_seed(0)
    model = build()
    for p in model.parameters():  # heads that start at zero depend on nothing
        if p.abs().max() == 0:
            nn.init.normal_(p, std=0.02)
    image = torch.rand(2, 3, size, size)
    assert find_map_layer(model, image[:1]) == layer
    before = [p.requires_grad for p in model.parameters()]
    cam = grad_cam(model, image)
    assert cam.shape == (2, 1, size, size)
    assert cam.min() >= 0
    assert torch.isfinite(cam).all()
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_works_under_inference_mode_and_with_frozen_parameters():
    model = torchvision.models.resnet18(num_classes=3).requires_grad_(False)
    image = torch.rand(1, 3, 64, 64)
    expected = grad_cam(model, image, 1, layer="layer4")
    with torch.inference_mode():
        assert torch.allclose(grad_cam(model, torch.clone(image), 1, layer="layer4"), expected)


def test_in_place_and_tuple_outputs():
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.relu = nn.ReLU(inplace=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return {"scores": self.fc(self.relu(self.conv(x)).mean((2, 3)))}

    cam = grad_cam(Returns(), torch.rand(2, 3, 8, 8), layer="conv", logits="scores")
    assert cam.shape == (2, 1, 8, 8)


def test_bad_input():
    model = torchvision.models.resnet18(num_classes=3)
    with pytest.raises(LookupError, match="near names: layer4"):
        grad_cam(model, torch.rand(1, 3, 64, 64), layer="layer44")
    with pytest.raises(ValueError, match=r"layer output: expected a map.*got \(1, 3\)"):
        grad_cam(model, torch.rand(1, 3, 64, 64), layer="fc")
    with pytest.raises(LookupError, match=r"no layer of Sequential gives a map.*layer=\.\.\."):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5), nn.ReLU(), nn.Linear(5, 2)), torch.rand(1, 3, 8, 8))
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' was not run"):
        grad_cam(model, torch.rand(1, 3, 64, 64), layer="unused")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 8, 4, 6), (2, 8, 4, 6)),
        ((2, 4, 6, 8), (2, 8, 4, 6)),
        ((2, 25, 8), (2, 8, 4, 6)),
        ((2, 24, 8), (2, 8, 4, 6)),
        ((2, 29, 8), (2, 8, 4, 6)),
    ],
)
def test_maps_of_an_image_of_another_height_than_width(shape, expected):
    assert as_map(torch.rand(shape), (64, 96)).shape == expected


def test_a_sure_softmax_is_named():
    """Its derivative is 0 where a probability is 1, so no layer seems to matter."""
    head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    head[-1].weight.data.mul_(1e5)
    with pytest.raises(LookupError, match="its output is a softmax, flat where the network is sure: take the logits"):
        grad_cam(nn.Sequential(*head, nn.Softmax(1)), torch.rand(2, 3, 8, 8) + 1)


class Blocks(nn.Module):
    """One convolution and one ReLU, run twice: one after the other, or side by side on a mirrored view."""

    def __init__(self, mirrored):
        super().__init__()
        torch.manual_seed(0)
        self.mirrored = mirrored
        self.body, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        if self.mirrored:
            return sum(self.head(self.relu(self.body(view)).mean((2, 3))) for view in (x, x.flip(-1)))
        return self.head(self.relu(self.body(self.relu(self.body(x)))).mean((2, 3)))


def test_a_shared_layer_gives_the_map_of_its_last_call():
    image = torch.rand(2, 3, 8, 8)
    shared, apart = Blocks(mirrored=False), Blocks(mirrored=False)
    apart.last = nn.ReLU()
    apart.forward = lambda x: apart.head(apart.last(apart.body(apart.relu(apart.body(x)))).mean((2, 3)))
    target = torch.tensor([0, 1])
    torch.testing.assert_close(
        grad_cam(shared, image, target, layer="relu"), grad_cam(apart, image, target, layer="last")
    )


def test_layers_that_run_side_by_side_have_no_one_map():
    with pytest.raises(ValueError, match=r"layer 'relu': expected one call .*got 2 side by side .*name a layer"):
        grad_cam(Blocks(mirrored=True), torch.rand(2, 3, 8, 8))


@hostile.wrong(image=hostile.IMAGES)
def test_wrong_images_are_named(wrong):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    wrong.refused_by(lambda image: grad_cam(model, image), image=torch.rand(2, 3, 8, 8))


class Followed(nn.Module):
    """A convolution with what follows it."""

    def __init__(self, follow):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.follow = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2), follow

    def forward(self, x):
        return self.head(self.follow(self.body, x).mean((2, 3)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_gives_its_map(reentrant):
    image, target = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    plain = Followed(lambda body, x: body(x).relu())
    again = Followed(lambda body, x: checkpoint(body, x, use_reentrant=reentrant).relu())
    expected = grad_cam(plain, image, target, layer="body", positive=False)
    torch.testing.assert_close(grad_cam(again, image, target, layer="body", positive=False), expected)


def test_what_works_in_place_does_not_change_the_map():
    """VGG's convolutions are followed by ``nn.ReLU(inplace=True)``: the map was the ReLU's."""
    image, target = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    apart = Followed(lambda body, x: body(x).relu())
    in_place = Followed(lambda body, x: body(x).relu_())
    expected = grad_cam(apart, image, target, layer="body", positive=False)
    torch.testing.assert_close(grad_cam(in_place, image, target, layer="body", positive=False), expected)
    assert not torch.equal(expected, grad_cam(apart, image, target, layer="body", positive=False).relu())


def test_a_later_call_that_nobody_reads_does_not_count():
    image, target = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    plain = Followed(lambda body, x: body(x).relu())

    def with_more(body, x):
        out = body(x).relu()
        body(x.flip(-1))  # such as a side loss's
        return out

    expected = grad_cam(plain, image, target, layer="body")
    torch.testing.assert_close(grad_cam(Followed(with_more), image, target, layer="body"), expected)


def test_layers_without_gradients_say_so():
    def frozen(body, x):
        with torch.no_grad():
            return body(x)

    with pytest.raises(ValueError, match=r"layer 'body': it runs without gradients .*; name a layer after it"):
        grad_cam(Followed(frozen), torch.rand(2, 3, 8, 8), layer="body")
    with pytest.raises(LookupError, match=r"no layer of Followed can be chosen, since gradients .*name one \(layer="):
        grad_cam(Followed(lambda body, x: checkpoint(torch.relu, body(x), use_reentrant=True)), torch.rand(2, 3, 8, 8))


class Corner(nn.Module):
    """Logits of one position of the last map; all of the first map reaches that position."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.last(self.first(image))[:, :, 0, 0])


def test_a_map_of_which_one_position_counts_is_passed_over():
    torch.manual_seed(0)
    assert find_map_layer(Corner(), torch.rand(1, 3, 8, 8)) == "first"
