"""Whether what enters a network are a batch's images: which of several views, and what a change of them is."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.moved_pixels import ChangeWatch, views_of

IMAGE = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

VIEWS = {
    "first": (torch.cat([IMAGE, IMAGE.flip(3)]), slice(0, 4)),
    "last of three": (torch.cat([IMAGE.flip(3), IMAGE.roll(1, 0), IMAGE]), slice(8, 12)),
    "side by side": (torch.stack([IMAGE.flip(2), IMAGE], 1).flatten(0, 1), slice(1, None, 2)),
    "normalised": (torch.cat([IMAGE.flip(3), (IMAGE - 0.4) / 0.2]), slice(4, 8)),
    "the very images before normalised ones": (torch.cat([IMAGE * 2, IMAGE]), slice(4, 8)),
    "none": (torch.cat([IMAGE.flip(3), IMAGE.flip(2)]), None),
    "one colour": (torch.cat([IMAGE.flip(3), torch.zeros_like(IMAGE)]), None),
    "other images": (torch.cat([IMAGE.roll(1, 0), IMAGE.roll(2, 0)]), None),
    "no whole number": (torch.cat([IMAGE, IMAGE[:1]]), None),
    "another size": (torch.cat([IMAGE, IMAGE])[..., 1:], None),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    entered, rows = VIEWS[name]
    own = views_of(entered, IMAGE)
    assert own == rows
    if rows is not None:
        assert entered[own].shape == IMAGE.shape


@pytest.mark.parametrize(("change", "times"), [(lambda x: x.flip(3), 1), (lambda x: x / 2 + 1, 0), (lambda x: x, 0)])
def test_changes_are_told_once(change, times):
    warnings = []
    watch = ChangeWatch(lambda: warnings.append(1))
    for _ in range(20):
        watch.look_at(change(IMAGE), IMAGE)
    watch.say()
    assert len(warnings) == times


def test_what_a_step_does_in_place_is_seen_on_copies_of_the_first_batches():
    warnings, watch = [], ChangeWatch(lambda: warnings.append(1))
    image = IMAGE.clone()
    before = watch.before(image)
    watch.look_at(image.mul_(0.5).add_(image.flip(0)), before)
    assert len(warnings) == 1
    assert watch.before(image) is image  # there is nothing more to say
    watch = ChangeWatch(lambda: warnings.append(1))
    for _ in range(8):
        assert watch.before(image) is not image
        watch.look_at(image, watch.before(image))
    assert watch.before(image) is image
    assert len(warnings) == 1


def test_a_change_in_a_later_batch_is_seen():
    warnings = []
    watch = ChangeWatch(lambda: warnings.append(1))
    for number in range(8):
        watch.look_at(IMAGE.flip(3) if number == 7 else IMAGE.clone(), IMAGE)
    assert len(warnings) == 1
