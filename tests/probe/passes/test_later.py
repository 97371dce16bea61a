"""Steps after the first ones: a rare change of the images is seen wherever it comes, and nobody waits for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.probe.passes.entry import ChannelMap, Entry
from torch_bgdebias.probe.passes.later import LaterSteps

DOUBLED = ChannelMap(torch.eye(3) * 2, -torch.ones(3))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()

    def forward(self, image):
        return self.body(image)


def watched(change, *, entry: Entry, at: int = 30, steps: int = 40, side: int = 200):
    net, later = Net(), LaterSteps(entry)
    generator = torch.Generator().manual_seed(0)
    for number in range(steps):
        image = torch.rand(6, 3, side, side, generator=generator)
        with later.watching(net, image):
            expected = image if entry.preprocess is None else entry.preprocess(image)
            change(net, expected) if number == at else net(expected)
    assert later.steps == steps or later.problem()
    assert not any(part._forward_pre_hooks for part in net.modules())
    return later.problem()


def of_one(net, x):
    x = x.clone()
    x[5] = x[5].flip(2)
    net(x)


def boxed(x):
    x = x.clone()
    x[:, :, 10:40, 10:40] = 0
    return x


CHANGES = {
    "a flip": (lambda net, x: net(x.flip(3)), "changes the images of some batches"),
    "a flip of the last image": (of_one, "changes the images of some batches"),
    "noise": (lambda net, x: net(x + 0.01 * torch.randn_like(x)), "changes the images of some batches"),
    "brightness": (lambda net, x: net(x * 1.02), "changes the images of some batches"),
    "a box of 30 x 30": (lambda net, x: net(boxed(x)), "changes the images of some batches"),
    "a crop": (lambda net, x: net(x[:, :, 4:, 4:]), r"is given images of \(6, 3, 196, 196\)"),
    "a second call": (lambda net, x: (net(x), net(x)), "it runs 2 times, in others 1"),
    "no call": (lambda net, x: None, "it runs 0 times, in others 1"),
    "nothing": (lambda net, x: net(x), ""),
}


@pytest.mark.parametrize("mapped", [None, DOUBLED], ids=["as they are", "normalised"])
@pytest.mark.parametrize("name", CHANGES)
def test_one_step_of_forty_is_seen(name: str, mapped) -> None:
    change, problem = CHANGES[name]
    with pytest.raises(AssertionError, match=problem or "^$"):
        raise AssertionError(watched(change, entry=Entry(True, mapped, at="body")))


def test_images_of_bytes_are_compared_as_the_step_makes_them() -> None:
    net, later = Net(), LaterSteps(Entry(True, ChannelMap(torch.eye(3) / 255, torch.zeros(3)), at="body"))
    image = torch.randint(256, (4, 3, 9, 9), dtype=torch.uint8)
    with later.watching(net, image):
        net(image / 255)
    assert later.problem() == ""
    with later.watching(net, image):
        net(image / 250)
    assert "in another way" in later.problem()


def test_where_nothing_can_be_told_from_the_batch_nothing_is_watched() -> None:
    net, later = Net(), LaterSteps(Entry(True, at=None))
    with later.watching(net, torch.rand(2, 3, 4, 4)):
        net(torch.rand(2, 3, 9, 9))
    assert later.steps == 0
    assert later.problem() == ""
