"""The Dual ISNet's two heatmaps against the original implementation, and on networks it never knew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torch_bgdebias import ISNet


def sequential(norm: bool) -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        bn = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *bn, nn.ReLU(inplace=True)]

    layers = [*block(3, 6), *block(6, 8), nn.MaxPool2d(2), *block(8, 8), nn.Flatten(), nn.Linear(288, 16)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(16, 5))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


@pytest.mark.parametrize("rule", ["dual", "dual_zb"])
@pytest.mark.parametrize("name", ["sequential", "sequential_bn"])
def test_reference_heatmaps_and_gradients(vectors, name, rule):
    arrays = {
        k.removeprefix(f"{name}/"): torch.tensor(v) for k, v in vectors("dual").items() if k.startswith(f"{name}/")
    }
    model = sequential(name == "sequential_bn").eval()
    model.load_state_dict({k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")})
    found = ISNet(model, "dual", input_rule="zbox" if rule == "dual_zb" else "gradient").explain(arrays["x"])
    assert distance(found.logits, arrays["logits"]) < 1e-5
    for index in (0, 1):
        assert distance(found.relevance[:, index], arrays[f"{rule}/heatmap"][:, index]) < 1e-5
    if rule == "dual_zb":
        return
    found.relevance.square().sum().backward()
    for parameter, value in model.named_parameters():
        gradient = arrays[f"dual/grad/{parameter}"]
        if gradient.shape == ():
            assert value.grad is None or float(value.grad.abs().max()) < 1e-6
        else:
            assert distance(value.grad, gradient) < 1e-4, parameter
