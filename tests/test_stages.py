"""Where the last stage begins, on networks whose authors named their stages, and on small ones."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torch_bgdebias.finetuning import last_stage
from torch_bgdebias.isnet import ISNet, ISNetLoss
from torch_bgdebias.stages import LAST_STAGE


class Shortcuts(nn.Module):
    """A halving without a layer, and one layer that other code calls by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(8, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        below = self.pool(input=torch.relu(self.lower(image)))
        return self.fc(self.upper(below).mean((2, 3)))


def conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def small(*, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        conv(3, 8), conv(8, 8, 2), conv(8, 16, 2), conv(16, 16), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(16, classes),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first", "before"),
    [
        ("resnet10t", "layer4", "layer3"),
        ("tf_efficientnet_lite0", "blocks.5", "blocks.4"),
        ("convnext_atto", "stages.3", "stages.2"),
        ("regnety_002", "s4", "s3"),
        ("swin_tiny_patch4_window7_224", "layers.3", "layers.2"),
        ("vit_tiny_patch16_224", "blocks.9", "blocks.8"),
        ("xcit_nano_12_p16_224", "blocks.9", "blocks.8"),  # its stem halves four times
        ("mixer_s32_224", "blocks.6", "blocks.5"),
    ],
)
def test_networks_of_timm(name, first, before):
    assert last_stage(timm.create_model(name)) == (first, before)


@pytest.mark.parametrize(
    ("name", "first", "before"),
    [
        ("resnet18", "layer4", "layer3"),
        ("densenet121", "features.transition3", "features.denseblock3"),
        ("mobilenet_v2", "features.14", "features.13"),
        ("vgg11", "features.16", "features.15"),  # what halves last there, a pooling layer, ends the network
        ("inception_v3", "Mixed_7a", "Mixed_6e"),
        ("convnext_tiny", "features.6", "features.5"),
    ],
)
def test_networks_of_torchvision(name, first, before):
    options = {"init_weights": False} if name == "inception_v3" else {}
    assert last_stage(getattr(torchvision.models, name)(weights=None, **options)) == (first, before)


def test_small_networks():
    assert last_stage(small()) == ("2", "1")
    assert last_stage(Shortcuts()) == ("upper", "pool")
    sized = nn.Sequential(conv(3, 4), conv(4, 4, 2), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))  # takes 28 pixels alone
    assert last_stage(sized) == ("1", "0")
    assert last_stage(nn.Sequential(conv(3, 4), nn.Conv2d(4, 4, 2, 2), nn.Flatten(), nn.Linear(16, 2)),
                      torch.zeros(2, 3, 4, 4)) == ("1", "0")  # fmt: skip


def test_the_network_is_left_as_it_was():
    network = small().train()
    network[1].eval()
    drawing = nn.Sequential(network, nn.Dropout())
    values = {name: value.clone() for name, value in drawing.state_dict().items()}
    modes = [m.training for m in drawing.modules()]
    state = torch.get_rng_state()
    last_stage(drawing)
    assert all(torch.equal(values[name], value) for name, value in drawing.state_dict().items())
    assert [m.training for m in drawing.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in drawing.modules())


def test_a_model_that_draws_does_not_move_the_generator():
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.net(image + torch.rand_like(image))

    model, state = Draws(), torch.get_rng_state()
    assert last_stage(model) == ("net.2", "net.1")
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_told_is_refused():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(LookupError, match=r"layers without a size yet \(lazy ones\): name the layers yourself"):
        last_stage(flat)
    with pytest.raises(LookupError, match="no last stage could be told .* name the layers yourself"):
        last_stage(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(LookupError, match=r"Linear: its stages .* does not run on .*float32.* \(RuntimeError: mat1"):
        last_stage(nn.Linear(5, 2))
    with pytest.raises(TypeError, match=r"model: expected an nn.Module, got str 'resnet18'"):
        last_stage("resnet18")
    with pytest.raises(LookupError, match="deep_supervision: 'last-stage': Linear: its stages"):
        ISNet(nn.Linear(5, 2), deep_supervision=LAST_STAGE)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224"])
def test_relevance_there_can_be_trained(name):
    torch.manual_seed(0)
    size = 224 if "vit" in name else 64
    network = timm.create_model(name, num_classes=4)
    isnet = ISNet(network, deep_supervision=LAST_STAGE, at_input=False)
    named = ISNet(network, deep_supervision=[last_stage(network).before], at_input=False)
    assert isnet.rules == named.rules
    image, mask = torch.rand(2, 3, size, size), torch.zeros(2, 1, size, size)
    mask[:, :, : size // 2] = 1
    explanation = isnet.explain(image)
    assert list(explanation.hidden) == [last_stage(network).before]
    ISNetLoss()(explanation.relevance, mask, explanation.hidden).backward()
    gradient = [p.grad for p in network.get_submodule(last_stage(network).first).parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradient)
    assert any(g.abs().sum() > 0 for g in gradient)


def test_one_forward_pass_is_all_that_it_costs():
    class Counting(TorchDispatchMode):
        convolutions = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.convolutions += func is torch.ops.aten.convolution.default
            return func(*args, **(kwargs or {}))

    with Counting() as counting:
        last_stage(small())
    assert counting.convolutions == 4
