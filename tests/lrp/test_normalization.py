"""Batch norm under other names: synchronised and frozen layers get the rules of ``nn.BatchNorm2d``, or are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias import ISNet
from torch_bgdebias.lrp.normalization import local_response_norm
from torch_bgdebias.lrp.switch import Switch

timm_layers = pytest.importorskip("timm.layers")
ops = pytest.importorskip("torchvision.ops")

DOUBLE = torch.float64


class Net(nn.Module):
    """Batch norm after the first layer, after another one, on its own, and at the end of a residual branch."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4)
        self.alone = nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = x + self.bn2(self.conv2(self.alone(x)))
        return self.fc(F.max_pool2d(x.relu_(), 2).mean((2, 3)))


def network(bias: bool = True) -> Net:
    net = Net(bias).to(DOUBLE)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()  # of both signs
            module.bias.data.normal_()
    return net


def replaced(net: Net, make) -> Net:
    """A copy whose batch norms are replaced by what ``make`` makes of them."""
    copy = Net(net.conv1.bias is not None).to(DOUBLE)
    copy.load_state_dict(net.state_dict())
    for name in ("bn1", "alone", "bn2"):
        setattr(copy, name, make(getattr(copy, name)))
    return copy


def frozen(norm: nn.BatchNorm2d) -> nn.Module:
    layer = ops.FrozenBatchNorm2d(4, eps=norm.eps).to(DOUBLE)
    layer.load_state_dict({k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"})
    return layer


def frozen_with_activation(norm: nn.BatchNorm2d) -> nn.Module:
    layer = timm_layers.FrozenBatchNormAct2d(4, eps=norm.eps, apply_act=False).to(DOUBLE)
    layer.load_state_dict({k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"})
    return layer


def picture() -> Tensor:
    return torch.rand(2, 3, 6, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


def assert_explained_alike(one: nn.Module, other: nn.Module, names: list[str], **options) -> None:
    results = []
    for model in (one, other):
        isnet = ISNet(model, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), dual_target="sum", **options)
        result = isnet.explain(picture(), torch.tensor([1, 3]) if options["variant"] != "dual" else None)
        assert float(result.relevance.detach().abs().max()) > 0
        result.relevance.square().sum().backward()
        results.append([result.logits, result.relevance, *(model.get_parameter(name).grad for name in names)])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


VARIANTS = pytest.mark.parametrize("variant", ["selective", "dual"])
RULES = pytest.mark.parametrize("rule", ["gradient", "zbox"])


@VARIANTS
@RULES
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_synchronised_batch_norm_in_one_process_is_batch_norm(variant, rule, train):
    model = network()
    other = nn.SyncBatchNorm.convert_sync_batchnorm(replaced(model, lambda norm: norm))
    assert isinstance(other.bn1, nn.SyncBatchNorm)
    names = [name for name, _ in model.named_parameters()]
    assert_explained_alike(model.train(train), other.train(train), names, variant=variant, input_rule=rule)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


@VARIANTS
@RULES
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("make", [frozen, frozen_with_activation])
def test_frozen_batch_norm_is_batch_norm_in_evaluation_mode(variant, rule, bias, make):
    model = network(bias)
    names = [name for name, _ in model.named_parameters() if "bn" not in name and "alone" not in name]
    other = replaced(model, make)
    for norm in (model.bn1, model.alone, model.bn2):
        norm.requires_grad_(False)
    assert_explained_alike(model.eval(), other.train(), names, variant=variant, input_rule=rule)


@VARIANTS
def test_a_gate_is_no_frozen_batch_norm(variant):
    """One image's gate has the shape of a constant per channel; it depends on the image and stays a product."""

    class Gated(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            return self.fc((x * torch.sigmoid(x.mean((2, 3), keepdim=True))).relu().mean((2, 3)))

    isnet, x = ISNet(Gated().to(DOUBLE).eval(), variant, dual_target="sum"), picture()
    torch.testing.assert_close(isnet.explain(x).relevance[:1], isnet.explain(x[:1]).relevance)


def test_statistics_shared_between_processes_are_refused_by_name(monkeypatch):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network()).train()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
    with pytest.raises(RuntimeError, match=r"layer 'bn1' \(SyncBatchNorm\) shares .* between 2 processes"):
        ISNet(model).explain(picture())
    assert ISNet(model.eval()).explain(picture()).relevance.isfinite().all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_local_response_norm_has_torchs_defaults():
    image = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(0)) * 50
    torch.testing.assert_close(local_response_norm(Switch(), image, 5), F.local_response_norm(image, 5))
