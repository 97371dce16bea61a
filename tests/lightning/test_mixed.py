"""Mixed images are seen by their targets; smoothed labels, votes and sets are none."""

from __future__ import annotations

import warnings

import pytest
import torch
from accelerator import ACCELERATORS
from torch.nn import functional as F

from torch_bgdebias import BatchSpec
from torch_bgdebias.batch import MaskedBatch
from torch_bgdebias.lightning.mixed import MixWatch, are_mixed

B, K = 8, 5
Y = torch.arange(B) % K
GENERATOR = torch.Generator().manual_seed(0)


def mixed(lam: float, classes: int = K, smoothing: float = 0.0, y: torch.Tensor = Y) -> torch.Tensor:
    one = F.one_hot(y % classes, classes) * (1 - smoothing) + smoothing / classes
    return lam * one + (1 - lam) * one.roll(1, 0)


SETS = (torch.rand(B, K, generator=GENERATOR) > 0.5).float()
TARGETS = {
    "mixup": (mixed(0.6813), True),
    "a little": (mixed(0.9641), True),
    "smoothed mixup": (mixed(0.6813, smoothing=0.1), True),
    "mixup of two classes": (mixed(0.6813, 2, y=torch.arange(B) // 3), True),
    "one-hot": (mixed(1.0), False),
    "smoothed": (mixed(1.0, smoothing=0.1), False),
    "smoothed, two classes": (mixed(1.0, 2, smoothing=0.07), False),
    "two of three readers": (mixed(2 / 3), False),
    "sets": (SETS, False),
    "smoothed sets": (SETS * 0.93 + 0.017, False),
    "shares of all classes": (torch.rand(B, K, generator=GENERATOR).softmax(1), False),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    target, expected = TARGETS[name]
    assert bool(are_mixed(target)) == bool(are_mixed(target.double())) == expected


def said(batches, spec: BatchSpec | None = None) -> int:
    watch = MixWatch(spec or BatchSpec(), "nothing fits")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in batches:
            watch.look_at(batch)
        watch.say()
    assert all("nothing fits. To mend it, mix the masks" in str(one.message) for one in caught)
    return len(caught)


def test_one_warning_unless_masks_were_mixed_too() -> None:
    image, mask = torch.rand(B, 3, 6, 6), torch.zeros(B, 1, 6, 6)
    mask[:, :, 1:4, 1:4] = 1
    assert said([(image, mixed(0.6813), mask)] * 3) == 1
    assert said([(image, mixed(1.0), mask)] * 9 + [(image, mixed(0.6813), mask)]) == 0  # beyond the first ones
    assert said([(image, mixed(0.6813, 2, y=torch.arange(B) // 3)[:, 1:], mask)]) == 1  # one share an image
    assert said([(image, mixed(0.6813), 0.6813 * mask + 0.3187 * mask.roll(2, 3))]) == 0
    assert said([(image, Y, mask), (image,), (image, Y.float(), mask), (image, mixed(0.6813)[:0], mask[:0])]) == 0
    assert said([(image, mixed(0.6813), mask)], BatchSpec(label=None)) == 0


PERMUTED = Y.flip(0)
PAIRS = {
    "a number": ((Y, PERMUTED, 0.3), True),
    "of each image": ((Y, PERMUTED, torch.full((B,), 0.3)), True),
    "a tensor of one": ((Y, PERMUTED, torch.tensor(0.3)), True),
    "in a dict": ({"a": Y, "b": PERMUTED, "lam": 0.3}, True),
    "nothing mixed": ((Y, PERMUTED, 1.0), False),
    "with themselves": ((Y, Y, 0.3), False),
    "other classes": ((Y, Y + 1, 0.3), False),
    "weights": ((Y, PERMUTED, torch.linspace(0.1, 0.9, B)), False),
    "without a share": ((Y, PERMUTED), False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_classes_an_image_and_a_share(name: str) -> None:
    target, expected = PAIRS[name]
    image, mask = torch.rand(B, 3, 6, 6), torch.ones(B, 1, 6, 6)
    parts = [*target.values()] if isinstance(target, dict) else [*target]
    assert said([(image, target, mask)] * 2) == expected
    assert said([(image, target, mask)], BatchSpec(label=(1, 0))) == expected
    assert said([(image, *parts, mask)], BatchSpec(mask=-1)) == expected
    assert said([MaskedBatch(image, target, mask)], BatchSpec(mask="mask")) == expected
    named = {"image": image, "mask": mask, **{f"target {i}": part for i, part in enumerate(parts)}}
    assert said([named], BatchSpec("image", "target 0", "mask")) == expected


def test_the_background_s_class_is_no_second_one() -> None:
    batch = (torch.rand(B, 3, 6, 6), Y, torch.ones(B, 1, 6, 6), PERMUTED, 0.3)
    assert said([batch]) == 1
    assert said([batch], BatchSpec(background_label=3)) == 0


def test_nobody_waits_for_the_device() -> None:
    with ACCELERATORS["simulated"]() as device:
        target, mask, y, other = (x.to(device.device) for x in (mixed(0.6813), torch.ones(B, 1, 4, 4), Y, PERMUTED))
        watch = MixWatch(BatchSpec(), "nothing fits")
        with device.no_waiting():
            watch.look_at((target, target, mask))
            watch.look_at((target, (y, other, 0.3), mask))
        with pytest.warns(UserWarning, match="mixup and cutmix in the loader"):
            watch.say()
