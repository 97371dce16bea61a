"""How images enter a network in a step is seen, and undone where it is a map over channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.probe.passes.entry import (
    ChannelMap,
    calls_by_module,
    compare_entries,
    other_networks,
    picture_in,
    several_calls,
)

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


def both(net: nn.Module, step, image):
    with torch.no_grad(), calls_by_module(net) as seen:
        step(net, image)
    with torch.no_grad(), calls_by_module(net) as plain:
        net(image[:8])
    return seen, plain


def entries(net: nn.Module, step, image):
    return compare_entries(*both(net, step, image), image[:8])


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
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_a_channel_that_never_changes_leaves_it_open() -> None:
    """Any slope fits a constant channel: no guess is made from it."""
    image = torch.rand(12, 3, 6, 6)
    image[:, 1] = 0.5
    assert "no normalisation" in entries(Net(), lambda net, x: net((x - MEAN) / STD), image).problem


class Beside(nn.Module):
    """Two networks of one kind; forward runs the first."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Net(), nn.Sequential(Net())

    def forward(self, image):
        return self.student(image)


SEVERAL = {
    "two views": (lambda net, x: (net(x), net(x.flip(3))), r"runs 2 times .* on different images"),
    "views in one batch": (lambda net, x: net(torch.cat([x, x.flip(3)])), r"24 images in 1 call\(s\) for the 12"),
    "one by one": (lambda net, x: [net(one[None]) for one in x], r"12 images in 12 call\(s\)"),
    "a part of the batch": (lambda net, x: net(x[:5]), r"5 images in 1 call\(s\) for the 12"),
    "dropout": (
        lambda net, x: [nn.functional.dropout(net(x), 0.5, True) for _ in range(3)],
        "",  # the network itself is the same three times; what the step makes of it is for the judgements
    ),
    "twice the same": (lambda net, x: (net(x), net(x)), ""),
    "once": (lambda net, x: net(x), ""),
    "not at all": (lambda net, x: None, ""),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_calls_are_told_from_one_that_is_repeated(name: str) -> None:
    step, problem = SEVERAL[name]
    with pytest.raises(AssertionError, match=f"^.*{problem}.*$" if problem else "^$"):
        raise AssertionError(several_calls(*both(Net(), step, torch.rand(12, 3, 6, 6)), 12))


def test_a_network_that_draws_answers_the_same_images_differently() -> None:
    class Draws(Net):
        def forward(self, image):
            return nn.functional.dropout(super().forward(image), 0.5, training=True)

    calls = both(Draws(), lambda net, x: (net(x), net(x)), torch.rand(12, 3, 6, 6))
    assert "runs 2 times in one validation step and answers the same images differently" in several_calls(*calls, 12)


def test_several_calls_of_the_forward_itself_are_the_network() -> None:
    class Averages(Net):
        def forward(self, image):
            return self.body(image) + self.body(image.flip(3))

    image = torch.rand(12, 3, 6, 6)
    for step in (lambda net, x: net(x), lambda net, x: net.body(x) + net.body(x.flip(3))):
        assert several_calls(*both(Averages(), step, image), 12) == ""
    calls = both(Averages(), lambda net, x: net.body(x) + net.body(x), image)
    assert several_calls(*calls, 12) == "its module 'body' is given different images in 2 calls"


def test_a_network_beside_the_forward_s_own_is_named_once() -> None:
    net, image = Beside(), torch.rand(12, 3, 6, 6)
    outputs = 4 * 4 * 4
    calls = both(net, lambda net, x: (net.student(x), net.teacher(x)), image)
    others = other_networks(*calls, outputs)
    assert list(others) == ["teacher"]
    torch.testing.assert_close(others["teacher"], net.teacher(image[:8]).detach())
    assert other_networks(*calls, outputs + 1) == {}
    assert other_networks(*both(net, lambda net, x: net(x), image), outputs) == {}


def test_a_call_that_fails_is_over() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(1, 1))
    with calls_by_module(net) as calls:
        with pytest.raises(RuntimeError):
            net(torch.rand(2, 3, 6, 6))
        assert not calls.running


@pytest.mark.parametrize(("channels", "seen"), [(1, True), (3, True), (4, True), (5, False), (8, False)])
def test_maps_of_more_than_four_channels_are_features(channels, seen):
    value = torch.rand(2, channels, 6, 6)
    assert (picture_in((None, 1), {"x": value}) is value) == seen
    assert (picture_in((value[:, :, None],), {}) is not None) == seen


def test_a_map_is_described_by_its_numbers() -> None:
    scaling = ChannelMap(torch.diag(torch.tensor([1.23456789, 2.0])), torch.tensor([0.5, -0.00004]))
    assert repr(scaling) == "channels times [1.2346, 2.0] plus [0.5, -0.0], as in the module's own step"
    order = ChannelMap(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2))
    assert "times [0.0, 1.0, 1.0, 0.0] plus [0.0, 0.0]" in repr(order)
    grey = ChannelMap(torch.tensor([[0.299, 0.587, 0.114]]), torch.zeros(1))
    assert "times [0.299, 0.587, 0.114] plus [0.0]" in repr(grey)
