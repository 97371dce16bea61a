"""The drawn example data: readable as a masked folder, the same each time, the background as telling as asked for."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.data import EXAMPLE_CLASSES, MaskedImageFolder, example_folder, example_loader


def batch(**options):
    return next(iter(example_loader(batch_size=1000, size=32, shuffle=False, **options)))


def test_folder_and_loader_hold_the_same_pictures(tmp_path):
    root = example_folder(tmp_path / "new" / "data", images_per_class=4, size=32)
    folder = MaskedImageFolder(root)
    assert folder.classes == list(EXAMPLE_CLASSES)
    image, label, mask = batch(images_per_class=4)
    for index in range(len(folder)):
        written = folder[index]
        assert torch.equal(written[0], image[index])
        assert written[1] == label[index]
        assert torch.equal(written[2], mask[index])
    assert len(folder) == 12
    bank = BackgroundBank.from_folder(root / "scenes", 32)
    assert len(bank) == 12
    assert list(bank.classes) == sorted(EXAMPLE_CLASSES.values())


def test_writing_twice_changes_nothing(tmp_path):
    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*.png")}

    example_folder(tmp_path, images_per_class=2, size=16)
    first = contents()
    example_folder(tmp_path, images_per_class=2, size=16)
    assert contents() == first
    example_folder(tmp_path, images_per_class=2, size=16, seed=1)
    assert all(contents()[path] != pixels for path, pixels in first.items())


def test_masks_are_the_shapes():
    image, label, mask = batch(images_per_class=50)
    share = mask.mean((1, 2, 3))
    assert share.min() > 0.02
    assert share.max() < 0.4
    full = mask[label == 0].amax((1, 2, 3)), mask[label == 1].amax((1, 2, 3))
    assert all((values == 1).all() for values in full)
    inside = (image * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    assert inside.std() > 0.1  # colours that tell nothing of the class


def background_colours(correlation: float) -> torch.Tensor:
    """Mean colour of each class's backgrounds (3 classes, 3 channels)."""
    image, label, mask = batch(images_per_class=150, correlation=correlation)
    outside = (1 - mask) * image
    mean = outside.sum((2, 3)) / (1 - mask).sum((2, 3))
    return torch.stack([mean[label == index].mean(0) for index in range(3)])


def test_correlation_is_what_the_background_tells():
    assert torch.pdist(background_colours(1.0)).min() > 0.15
    assert torch.pdist(background_colours(0.0)).max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_class": 0}, "images_per_class: expected a whole number of at least 1, got 0"),
        ({"size": 8}, "size: expected a whole number of at least 16, got 8"),
        ({"correlation": 1.5}, r"correlation: expected a share in \[0, 1\], got 1.5"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        example_loader(**options)
