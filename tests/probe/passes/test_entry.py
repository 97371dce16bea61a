"""How images enter a network in a step is seen, and undone where it is a map over channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.probe.passes.entry import compare_entries, inputs_by_module

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).reshape(3, 1, 1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())

    def forward(self, image):
        return self.body(image)


class Shifting(Net):
    def forward(self, image):
        return self.body(image - 1)


STEPS = {
    "as it is": (lambda net, x: net(x), None),
    "normalised": (lambda net, x: net((x - MEAN) / STD), lambda x: (x - MEAN) / STD),
    "its body normalised": (lambda net, x: net.body((x - MEAN) / STD), lambda x: (x - MEAN) / STD),
    "channels in another order": (lambda net, x: net(x.flip(1)), lambda x: x.flip(1)),
    "forward without hooks": (lambda net, x: net.forward(x * 2 - 1), lambda x: x * 2 - 1),
}


def entries(net: nn.Module, step, image):
    with torch.no_grad(), inputs_by_module(net, len(image)) as seen:
        step(net, image)
    with torch.no_grad(), inputs_by_module(net, 8) as plain:
        net(image[:8])
    return compare_entries(seen, plain, image[:8])


@pytest.mark.parametrize("name", STEPS)
def test_a_map_over_channels_is_found(name: str) -> None:
    step, expected = STEPS[name]
    image = torch.rand(12, 3, 6, 6)
    entry = entries(Net(), step, image)
    assert entry.compared
    assert entry.problem == ""
    if expected is None:
        assert entry.preprocess is None
    else:
        torch.testing.assert_close(entry.preprocess(image), expected(image), rtol=1e-4, atol=1e-4)
        assert "as in the module's own step" in repr(entry.preprocess)


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (lambda net, x: net(x.flip(3)), "changed in a way that is no normalisation"),
        (lambda net, x: net(x[:, :, 1:, 1:]), r"images of \(5, 5\) instead of \(6, 6\) pixels"),
        (lambda net, x: net(x + 0.3 * torch.rand_like(x)), "changed in a way that is no normalisation"),
        (lambda net, x: net(x.square()), "changed in a way that is no normalisation"),
    ],
)
def test_other_changes_are_named(step, problem: str) -> None:
    entry = entries(Net(), step, torch.rand(12, 3, 6, 6))
    assert entry.preprocess is None
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(entry.problem)


def test_a_forward_that_changes_the_image_itself() -> None:
    image = torch.rand(12, 3, 6, 6)
    assert entries(Shifting(), lambda net, x: net(x), image).problem == ""
    other = entries(Shifting(), lambda net, x: net.body(x), image)
    assert "is given other images in the module's own step than by its forward" in other.problem


def test_nothing_in_common_is_no_comparison_and_leaves_no_hook() -> None:
    net = Net()
    entry = entries(net, lambda net, x: None, torch.rand(12, 3, 6, 6))
    assert not entry.compared
    assert entry.problem == ""
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_a_channel_that_never_changes_leaves_it_open() -> None:
    """Any slope fits a constant channel: no guess is made from it."""
    image = torch.rand(12, 3, 6, 6)
    image[:, 1] = 0.5
    assert "no normalisation" in entries(Net(), lambda net, x: net((x - MEAN) / STD), image).problem
