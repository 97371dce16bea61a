from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.swap import BackgroundSwap


class Masked(Dataset):
    def __init__(self, image: torch.Tensor, mask: torch.Tensor) -> None:
        self.image, self.mask = image, mask

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, i: int):
        return self.image[i], i % 3, self.mask[i]


def test_sample_scales_and_normalises(device):
    images = torch.randint(0, 256, (7, 3, 5, 6), dtype=torch.uint8)
    bank = BackgroundBank(images, range(7), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).to(device)
    sampled, labels = bank.sample(20, generator=torch.Generator(device).manual_seed(0))
    mean, std = torch.tensor([0.5, 0.4, 0.3])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    expected = (images.float()[labels.cpu()] / 255 - mean) / std
    torch.testing.assert_close(sampled.cpu(), expected)
    assert bank.images.dtype == torch.uint8
    assert len(bank) == bank.num_classes == 7


def test_float_images_are_taken_as_they_are():
    images = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    sampled, labels = BackgroundBank(images).sample(9)
    assert sampled.dtype == torch.float64
    assert labels.tolist() == [-1] * 9
    assert all(any(torch.equal(one, image) for image in images) for one in sampled)


def test_draw_excludes_per_sample():
    bank = BackgroundBank(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.tensor([4, 4, 7, 7, 9]))
    exclude = torch.tensor([4, 7, 9, 5]).repeat(500)
    index = bank.draw(2000, exclude)
    assert index.shape == (2000,)
    assert (bank.labels[index] != exclude).all()
    assert bank.draw(3, cells=2).shape == (3, 2)


def test_one_image_and_one_class():
    bank = BackgroundBank(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), [3])
    assert bank.draw(4).tolist() == [0] * 4
    assert bank.draw(2, torch.tensor([3, 2])).tolist() == [-1, 0]
    with pytest.raises(ValueError, match="exclude_labels: expected a bank of at least two classes, got one class"):
        bank.sample(2, torch.tensor([3, 2]))


def test_bad_banks_are_named():
    images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"labels: expected shape \(3,\), got int64 tensor of shape \(2,\)"):
        BackgroundBank(images, [0, 1])
    with pytest.raises(TypeError, match="labels: expected integer classes"):
        BackgroundBank(images, [0.5, 1.0, 2.0])
    with pytest.raises(TypeError, match="images: expected a uint8 or floating point tensor"):
        BackgroundBank(images.int())
    with pytest.raises(ValueError, match="images: expected shape"):
        BackgroundBank(images[:0])
    with pytest.raises(ValueError, match=r"images: expected finite values, got NaN or infinity in sample\(s\) \[1\]"):
        BackgroundBank(torch.tensor([0.0, torch.nan]).view(2, 1, 1, 1))
    with pytest.raises(ValueError, match="mean: expected 3 values, one a channel, got 1"):
        BackgroundBank(images, mean=[0.5], std=[0.5])
    with pytest.raises(ValueError, match="mean, std: expected both or none"):
        BackgroundBank(images, mean=[0.5] * 3)
    with pytest.raises(ValueError, match="std: expected positive values"):
        BackgroundBank(images, mean=[0.5] * 3, std=[0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="exclude_labels: expected a bank with labels"):
        BackgroundBank(images).draw(2, torch.tensor([0, 1]))


def test_subset_keeps_names_labels_and_normalisation():
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    bank = BackgroundBank(images, [0, 0, 1, 2, 2], mean=mean, std=std, classes=["a", "b", "c"])
    for index in (torch.tensor([4, 0]), torch.tensor([True, False, False, False, True])):
        part = bank.subset(index)
        expected = torch.tensor([4, 0]) if index.dtype == torch.int64 else torch.tensor([0, 4])
        assert part.labels.tolist() == bank.labels[expected].tolist()
        assert (part.classes, part.num_classes) == (("a", "b", "c"), 3)
        assert torch.equal(part.float_images(torch.arange(2)), bank.float_images(expected))
    assert BackgroundBank(images).subset(torch.tensor([1])).labels is None
    with pytest.raises(ValueError, match="at least one image"):
        bank.subset(bank.labels == 7)


def test_from_dataset_removes_the_foreground_first(generator):
    image = torch.rand(10, 3, 8, 8, generator=generator)
    mask = torch.zeros(10, 1, 8, 8)
    mask[:, :, 2:5, 3:6] = 1
    bank = BackgroundBank.from_dataset(Masked(image, mask), batch_size=4)
    torch.testing.assert_close(bank.images, tile_fill(image, mask))
    assert bank.labels.tolist() == [i % 3 for i in range(10)]
    quantised = BackgroundBank.from_dataset(Masked(image, mask), dtype=torch.uint8)
    assert quantised.images.dtype == torch.uint8
    assert (quantised.images.float() / 255 - bank.images).abs().max() <= 0.5 / 255 + 1e-6
    from_bytes = BackgroundBank.from_dataset(Masked((image * 255).byte(), mask))
    assert torch.equal(from_bytes.images, tile_fill((image * 255).byte().float(), mask).byte())
    assert BackgroundBank.from_dataset(Masked(image, mask), "mean", BatchSpec(label=None)).labels is None


def test_from_dataset_bad_input_is_named(generator):
    image = torch.randn(4, 3, 8, 8, generator=generator)
    with pytest.raises(ValueError, match=r"dataset: expected images in \[0, 1\] for dtype=torch.uint8"):
        BackgroundBank.from_dataset(Masked(image, torch.zeros(4, 1, 8, 8)), dtype=torch.uint8)
    with pytest.raises(ValueError, match="dataset: expected at least one image"):
        BackgroundBank.from_dataset(Masked(image[:0], image[:0]))
    with pytest.raises(ValueError, match="mask: expected shape"):
        BackgroundBank.from_dataset(Masked(image, torch.zeros(4, 1, 9, 8)))
    with pytest.raises(ValueError, match="fill: expected one of 'tile', 'mean', got 'blur'"):
        BackgroundBank.from_dataset(Masked(image, torch.zeros(4, 1, 8, 8)), "blur")


class LargestResult(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return out


def test_a_hundred_thousand_images_stay_uint8():
    images = torch.zeros(100_000, 3, 16, 16, dtype=torch.uint8)
    image, mask, label = torch.rand(32, 3, 16, 16), torch.rand(32, 1, 16, 16), torch.arange(32) % 9
    with LargestResult() as seen:
        bank = BackgroundBank(images, torch.arange(100_000) % 9)
        bank.sample(32, label)
        for pattern in ("paste", "voronoi"):
            BackgroundSwap(bank, pattern)(image, mask, label)
    assert bank.images.data_ptr() == images.data_ptr()  # not even one copy
    assert seen.largest < 1_000_000  # bytes: the labels' order; the images have 77 million
