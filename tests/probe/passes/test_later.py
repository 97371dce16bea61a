"""Steps after the first ones: a rare change of the images is seen wherever it comes, and nobody waits for it."""

from __future__ import annotations

import pytest
import torch
from accelerator import ACCELERATORS
from torch import nn
from torch.nn import functional as F

from torch_bgdebias.probe.passes.entry import ChannelMap, Entry
from torch_bgdebias.probe.passes.label_agreement import Agreements
from torch_bgdebias.probe.passes.later import LaterSteps

DOUBLED = ChannelMap(torch.eye(3) * 2, -torch.ones(3))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()

    def forward(self, image):
        return self.body(image)


def plain(net, images):
    net(images)


def watched(change, *, entry: Entry, at: int = 30, steps: int = 40, side: int = 200):
    net, later = Net(), LaterSteps(entry, plain)
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
        raise AssertionError(watched(change, entry=Entry(True, mapped, at="body", arrives=mapped)))


def test_images_of_bytes_are_compared_as_the_step_makes_them() -> None:
    by_255 = ChannelMap(torch.eye(3) / 255, torch.zeros(3))
    net, later = Net(), LaterSteps(Entry(True, by_255, at="body", arrives=by_255), plain)
    image = torch.randint(256, (4, 3, 9, 9), dtype=torch.uint8)
    with later.watching(net, image):
        net(image / 255)
    assert later.problem() == ""
    with later.watching(net, image):
        net(image / 250)
    assert "in another way" in later.problem()


def test_where_nothing_can_be_told_from_the_batch_images_are_not_compared() -> None:
    net, later = Net(), LaterSteps(Entry(True, at=None), plain)
    with later.watching(net, torch.rand(2, 3, 4, 4)):
        net(torch.rand(2, 3, 9, 9))
    assert later.problem() == ""


class Inside(nn.Module):
    """Its forward enlarges images, which is no map over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

    def forward(self, image):
        return self.body(F.interpolate(image, (8, 8)))


def by_forward(change, *, steps: int = 40, at: int = 25, whole: bool = False) -> LaterSteps:
    """Batches of one size after the other; in one step the images or what is judged are others."""
    torch.manual_seed(0)
    net, generator = Inside(), torch.Generator().manual_seed(0)
    entry = Entry(True, at="body", by_forward=True, tops=("",), whole=whole)
    later = LaterSteps(entry, lambda module, images: module(images).detach())
    for number in range(steps):
        side = 5 if number % 2 else 6
        image = torch.rand(6, 3, side, side, generator=generator)
        label = torch.arange(6) % 4
        with later.watching(net, image):
            logits = change(net, image) if number == at else net(image)
            (logits.argmax(1) == label).float().mean()
    later.finish(net)
    assert later.steps == steps
    assert not later.unanswered
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in net.modules())
    return later


@pytest.mark.parametrize("whole", [False, True])
def test_what_forward_does_to_its_images_is_asked_of_forward(whole: bool) -> None:
    later = by_forward(lambda net, image: net(image), whole=whole)
    assert (later.problem(), later.judges_otherwise(), later.cuts_elsewhere()) == ("", False, False)
    later = by_forward(lambda net, image: net(image.flip(3)), whole=whole)
    assert "changes the images of some batches in another way" in later.problem()


def test_one_step_of_forty_that_judges_something_else_is_seen() -> None:
    later = by_forward(lambda net, image: net(image).roll(1, 1))
    assert later.problem() == ""
    assert later.judges_otherwise()
    assert later.judges_otherwise()  # it stays said


def test_steps_with_other_weights_are_not_asked_again() -> None:
    net = Inside()
    later = LaterSteps(Entry(True, at="body", by_forward=True), lambda module, images: module(images).detach())
    with later.watching(net, torch.rand(6, 3, 5, 5)) as judged:
        judged.returned(torch.zeros(6, 4))  # what the weights of before said
    later.forget_waiting()
    later.finish(net)
    assert not later.judges_otherwise()


def test_a_plain_call_that_fails_is_noted() -> None:
    net, later = Inside(), LaterSteps(Entry(True, at="body"), lambda module, images: None)
    with later.watching(net, torch.rand(6, 3, 5, 5)):
        net(torch.rand(6, 3, 5, 5)).argmax(1)
    later.finish(net)
    assert later.unanswered
    assert not later.judges_otherwise()


def test_nobody_waits_for_the_device() -> None:
    with ACCELERATORS["simulated"]() as device:
        net = Inside().to(device.device)
        later = LaterSteps(Entry(True, at="", tops=("",)), lambda module, images: module(images).detach())
        labels = Agreements()
        image, label = (x.to(device.device) for x in (torch.rand(6, 3, 8, 8), torch.arange(6) % 4))
        with device.no_waiting():
            for _ in range(20):
                with later.watching(net, image) as judged, torch.no_grad():
                    logits = net(image)
                    F.cross_entropy(logits, label)
                    (logits.argmax(1) == label).float()
                labels.add(judged.agree(label), predicted=True)
            later.finish(net)
        assert (later.problem(), later.judges_otherwise(), later.cuts_elsewhere()) == ("", False, False)
        assert (labels.unseen, labels.other) == ("", False)
