"""Lower stages fixed and given back, in a loop of one's own."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

from torch_bgdebias.callbacks import FreezeLowerStages
from torch_bgdebias.finetuning import freeze_lower_stages


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(64, 2),
    )  # fmt: skip


def step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    torch.nn.functional.cross_entropy(model(torch.rand(6, 3, 8, 8)), torch.tensor([0, 1] * 3)).backward()
    optimizer.step()


@pytest.mark.parametrize("keep_norms", [True, False])
def test_what_is_fixed_stays_to_the_bit(keep_norms):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with freeze_lower_stages(model, "3", keep_norms=keep_norms) as stages:
        step(model)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    lower = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    statistics = {"4.running_mean", "4.running_var", "4.num_batches_tracked"}
    assert changed == before.keys() - lower - (statistics if keep_norms else set())
    assert stages.fixed == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert stages.norms == (["1", "4"] if keep_norms else ["1"])


def test_everything_is_given_back_also_after_an_error():
    model = network()
    model[0].bias.requires_grad_(False)  # the user's own
    model[1].eval()
    parameters, modes = list(model.parameters()), [m.training for m in model.modules()]

    def fail():
        with freeze_lower_stages(model, "3"):
            step(model)
            raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        fail()
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert [p.requires_grad for p in model.parameters()] == [True, False] + [True] * 8
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_pre_hooks for m in model.modules())
    stages = freeze_lower_stages(model, "3")
    stages.restore()
    stages.restore()  # nothing more to give back


@pytest.mark.parametrize(
    ("name", "until"),
    [("resnet18", "layer4"), ("tf_efficientnet_lite0", "blocks.5"), ("vit_tiny_patch16_224", "blocks.8")],
)
def test_networks_of_timm(name, until):
    model = timm.create_model(name)
    total = len(list(model.parameters()))
    with freeze_lower_stages(model, until) as stages:
        assert 0 < len(stages.fixed) < total
        trains = [name for name, p in model.named_parameters() if p.requires_grad]
        assert trains[0].startswith(until)
        assert len(trains) + len(stages.fixed) == total


def test_errors_say_what_to_do():
    model = network()
    with pytest.raises(LookupError, match=r"until: layer 'layer9' is not in Sequential; near names: "):
        freeze_lower_stages(model, "layer9")
    with pytest.raises(
        ValueError, match=re.escape("until: expected a layer with parameters, got '2' without any; name the one after")
    ):
        freeze_lower_stages(model, "2")
    freeze_lower_stages(model, "3").restore()  # the advice
    with pytest.raises(
        ValueError, match="until: expected a layer after others, got '0', before which the model has nothing"
    ):
        freeze_lower_stages(model, "0")
    with pytest.raises(TypeError, match=r"model: expected an nn.Module, got"):
        freeze_lower_stages("resnet18", "layer4")
    with pytest.raises(TypeError, match="until: expected the name of a layer, such as 'layer4', got int 2"):
        freeze_lower_stages(model, 2)
    with pytest.raises(TypeError, match="until: expected the name of a layer, such as 'net.layer4', got int 2"):
        FreezeLowerStages(2)
