"""ISNet against the original implementation's heatmaps and gradients."""

from __future__ import annotations

import pytest
import torch
from isnet_networks import Plain, distance
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from torch_bgdebias import ISNet


class Residual(nn.Module):
    """torchvision's blocks, in which one ReLU module is used twice."""

    def __init__(self) -> None:
        super().__init__()
        down = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, down))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))).mean((2, 3)))


MODELS = {"plain": lambda: Plain(5, False), "plain_bn": lambda: Plain(7, True), "resnet": Residual}


def reference(arrays, name: str) -> tuple[nn.Module, Tensor, Tensor]:
    model = MODELS[name]()
    prefix = f"{name}/state/"
    model.load_state_dict({k.removeprefix(prefix): torch.tensor(v) for k, v in arrays.items() if k.startswith(prefix)})
    return model.eval(), torch.tensor(arrays[f"{name}/x"]), torch.tensor(arrays[f"{name}/label"])


CASES = [(name, mode) for name in MODELS for mode in ("selective", "label", "original")]
CASES += [("plain_bn", "label_zb"), ("resnet", "label_zb")]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_reference_heatmaps_and_gradients(vectors, name, mode):
    arrays = vectors("lrp_flex")
    model, x, label = reference(arrays, name)
    isnet = ISNet(
        model,
        "original" if mode == "original" else "selective",
        selective_eps=1e-2,
        input_rule="zbox" if mode == "label_zb" else "gradient",
    )
    explanation = isnet.explain(x, label if mode.startswith("label") else None)
    expected = {k.split("/", 2)[2]: torch.tensor(v) for k, v in arrays.items() if k.startswith(f"{name}/{mode}/")}
    if "logits" in expected:
        assert distance(explanation.logits, expected["logits"]) < 1e-5
    assert explanation.relevance.shape == expected["heatmap"].shape
    assert distance(explanation.relevance, expected["heatmap"]) < 1e-5
    explanation.relevance.square().sum().backward()
    for parameter, value in model.named_parameters():
        if f"grad/{parameter}" in expected:
            gradient = expected[f"grad/{parameter}"]
            if gradient.shape == ():
                assert value.grad is None or not value.grad.any()
            else:
                assert distance(value.grad, gradient) < 1e-4, parameter
