from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from torch_bgdebias.concepts import ActivationReader, choose_layers

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


def images(n=2, size=64):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


class YoloLike(nn.Module):
    """Neither torchvision nor timm carries a YOLO: a dark net with a cell grid of predictions at two strides."""

    def __init__(self):
        super().__init__()

        def block(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.1))

        self.backbone = nn.ModuleList([block(3, 8), block(8, 12), block(12, 16), block(16, 20)])
        self.heads = nn.ModuleDict({"p8": nn.Conv2d(16, 18, 1), "p16": nn.Conv2d(20, 18, 1)})

    def forward(self, x):
        levels = []
        for block in self.backbone:
            x = block(x)
            levels.append(x)
        return [self.heads["p8"](levels[2]), self.heads["p16"](levels[3])]


def detr():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_labels=3,
    )
    return transformers.DetrForObjectDetection(config)


def small_vgg():
    vgg = torchvision.models.VGG(torchvision.models.vgg.make_layers([8, "M", 12, "M", 16, "M", 16, "M"]), num_classes=3)
    vgg.classifier = nn.Sequential(nn.Linear(16 * 49, 8), nn.ReLU(), nn.Linear(8, 3))
    return vgg


FAMILIES = {
    "efficientnet": lambda: timm.create_model("efficientnet_b0", num_classes=3),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=3),
    "vgg": small_vgg,
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=64, embed_dim=24, num_heads=2, depth=4, num_classes=3
    ),
    "vit_torchvision": lambda: torchvision.models.VisionTransformer(64, 16, 4, 2, 24, 48, num_classes=3),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=12, num_heads=(1, 2, 4, 4), num_classes=3
    ),
    "swin_torchvision": lambda: torchvision.models.SwinTransformer([4, 4], 12, [2, 2, 2], [1, 2, 4], [4, 4]),
    "resnet": lambda: timm.create_model("resnet18", num_classes=3),
    "detr": detr,
    "yolo_like": YoloLike,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_three_layers_of_every_family(family):
    torch.manual_seed(0)
    model = FAMILIES[family]().train()
    modes = [m.training for m in model.modules()]
    reader = ActivationReader(model)
    maps = reader(images())
    assert 2 <= len(maps) <= 3
    assert list(maps) == list(reader.layers)
    sizes = [m.shape[2] for m in maps.values()]
    assert sizes == sorted(sizes, reverse=True)  # early ones are not coarser
    for activation in maps.values():
        assert activation.ndim == 4
        assert activation.shape[0] == 2
        assert activation.shape[2] == activation.shape[3] > 1
        assert not activation.requires_grad
    named = ActivationReader(model, list(maps))(images())  # through hooks: the same maps
    for name, activation in maps.items():
        torch.testing.assert_close(named[name], activation)
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks for m in model.modules())


def test_detection_backbones():
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    maps = ActivationReader(detector, ["backbone.body", "backbone.fpn", "backbone.fpn[1]"])(images())
    assert maps["backbone.body"].shape[2:] == maps["backbone.fpn"].shape[2:]
    assert maps["backbone.fpn"].shape[1] == 256
    with torch.no_grad():
        expected = detector.eval().backbone(images())
    torch.testing.assert_close(maps["backbone.fpn"], expected["0"])
    assert len(ActivationReader(detector)(images())) == 3
    with pytest.raises(ValueError, match=r"fpn.*no entry '9'"):
        ActivationReader(detector, ["backbone.fpn[9]"])(images())
    ssd = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    assert len(ActivationReader(ssd)(images(size=128))) == 3


def test_tokens_keep_their_places():
    """A patch that alone is bright is the pixel that alone is large."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=24, num_heads=2, depth=2, reg_tokens=4)
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 16:32, 48:64] = 5.0
    nn.init.zeros_(model.pos_embed)
    activation = ActivationReader(model, ["blocks.0.norm1"])(image)["blocks.0.norm1"]
    different = (activation - activation[:, :, :1, :1]).abs().sum(1)[0] > 1e-4
    assert activation.shape == (1, 24, 4, 4)
    assert different.nonzero().tolist() == [[1, 3]]


def test_swin_windows_are_put_together():
    model = FAMILIES["swin"]().eval()
    block = model.layers[0].blocks[1]  # shifted
    assert tuple(block.shift_size) == (2, 2)
    activation = ActivationReader(model, ["layers.0.blocks.1.attn"])(images())["layers.0.blocks.1.attn"]
    with torch.no_grad():
        before = model.layers[0].blocks[0](model.patch_embed(images()))
        expected = block._attn(block.norm1(before))
    torch.testing.assert_close(activation, expected.permute(0, 3, 1, 2))
    deeper = ActivationReader(model, ["layers.0.blocks.1.attn.proj"])(images())["layers.0.blocks.1.attn.proj"]
    assert torch.equal(deeper, activation)  # the last thing that this attention does
    first = nn.Sequential(OrderedDict(embed=model.patch_embed, early=model.layers[0].blocks[0], block=block))
    assert torch.equal(ActivationReader(first, ["block.attn"])(images())["block.attn"], activation)


def test_bad_layers():
    model = FAMILIES["vgg"]()
    with pytest.raises(LookupError, match="near names: features"):
        ActivationReader(model, ["features.99"])
    with pytest.raises(ValueError, match=r"layer 'classifier.0'.*expected a map"):
        ActivationReader(model, ["classifier.0"])(images())
    with pytest.raises(TypeError, match="list of names"):
        ActivationReader(model, "features.1")
    with pytest.raises(ValueError, match="at least one name"):
        ActivationReader(model, [])
    nn.init.constant_(model.features[0].weight, float("nan"))
    with pytest.raises(ValueError, match=r"layer 'features.0'.*finite"):
        ActivationReader(model, ["features.0"])(images())
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(ValueError, match="returns a map"):
        choose_layers(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(1, 3, 2, 2))


def test_a_layer_that_is_not_called():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match="without calling it"):
        ActivationReader(Net(), ["unused"])(images())


def test_a_layer_that_runs_twice_has_no_one_map():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.body(x).mean((2, 3)) + self.body(x.flip(-1)).mean((2, 3))

    with pytest.raises(ValueError, match=r"layer 'body': expected one call in a forward pass, got 2"):
        ActivationReader(Twice(), ["body"])(images())


def test_what_works_in_place_does_not_change_a_map():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(ActivationReader(model, ["0"])(images)["0"], model[0](images).detach())


def test_layers_that_run_twice_are_not_chosen():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.relu, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.relu(self.b(self.relu(self.a(x))))

    assert list(ActivationReader(Shared())(torch.rand(2, 3, 8, 8))) == ["a", "b"]


def test_a_forward_of_ones_own_is_run_on_timm_s_models_too():
    """Their own ``forward_intermediates`` knows nothing of it."""
    model, images = timm.create_model("resnet18", num_classes=3), torch.rand(2, 3, 64, 64)

    def darker(net, image):
        return net(image / 4)

    maps = ActivationReader(model, forward=darker)(images)
    assert list(maps) == ["layer1", "layer2", "layer4"]
    for name, layer_map in ActivationReader(model)(images / 4).items():
        torch.testing.assert_close(maps[name], layer_map)
