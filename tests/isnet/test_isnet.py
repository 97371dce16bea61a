"""Does it do what it is for? The example's training, judged on images whose corner says the wrong class."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "isnet_loop.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("isnet_loop", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "weight"), [("selective", 0.0), ("selective", 0.7), ("stochastic", 0.7), ("dual", 0.7)]
)
def test_training_with_heatmaps_ignores_the_corner(example, variant, weight):
    generator = torch.Generator().manual_seed(0)
    data = example.draw(1000, generator)
    right, wrong = example.draw(500, generator), example.draw(500, generator, wrong=True)
    torch.manual_seed(0)
    net = example.build()
    example.train(net, data, weight=weight, epochs=8, variant=variant)
    net.eval()
    with torch.no_grad():
        same, other = ((net(image).argmax(1) == label).float().mean() for image, _, label in (right, wrong))
    assert same > 0.95
    if weight == 0:
        assert other < 0.5  # the bias is there to be found
    else:
        assert other > 0.95
