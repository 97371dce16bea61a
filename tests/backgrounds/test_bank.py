from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from torch_bgdebias.backgrounds.folder import cover
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap


def make_folder(root: Path, *, categories=("field", "sea"), count=3, size=(20, 30)) -> Path:
    rng = np.random.default_rng(0)
    for number, category in enumerate(categories):
        (root / category).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (*size, 3), dtype=np.uint8) + np.uint8(90 * number)
            Image.fromarray(pixels).save(root / category / f"{i}.png")
    return root


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


def test_from_folder_reads_categories_and_covers(tmp_path):
    bank = BackgroundBank.from_folder(make_folder(tmp_path), (10, 10), threads=2)
    assert bank.images.shape == (6, 3, 10, 10)
    assert bank.classes == ("field", "sea")
    assert bank.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert bank.images[:3].max() < 60 <= 90 <= bank.images[3:].min()
    assert BackgroundBank.from_folder(tmp_path, 8, channels=1).images.shape == (6, 1, 8, 8)
    flat = BackgroundBank.from_folder(tmp_path / "sea", (8, 8))
    assert flat.labels is None
    assert len(flat) == 3


def test_from_folder_takes_the_categories_it_is_told(tmp_path):
    root = make_folder(tmp_path, categories=("field", "forest", "sea"))
    every = BackgroundBank.from_folder(root, 8)
    bank = BackgroundBank.from_folder(root, 8, classes=["sea", "field"])
    assert bank.classes == ("sea", "field")
    assert bank.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(bank.images, torch.cat([every.images[6:], every.images[:3]]))
    for wrong in (["lake"], []):
        with pytest.raises(ValueError, match=r"classes: expected some of the categories \['field', 'forest', 'sea'\]"):
            BackgroundBank.from_folder(root, 8, classes=wrong)


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


def test_cover_keeps_proportions_and_crops_the_centre(tmp_path):
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, 20:60] = 200  # exactly the square that remains
    Image.fromarray(stripes).save(tmp_path / "a.png")
    square = cover(tmp_path / "a.png", (20, 20))
    assert square[..., 1:-1].unique().tolist() == [200]  # the outermost pixels are smoothed with their neighbours
    assert square.min() > 150
    assert cover(tmp_path / "a.png", (40, 80))[0].numpy().tolist() == stripes[..., 0].tolist()
    tall = cover(tmp_path / "a.png", (60, 20))  # enlarged
    assert tall.shape == (3, 60, 20)
    assert tall[..., 1:-1].unique().tolist() == [200]


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same(tmp_path):
    y, x = np.mgrid[0:600, 0:900]
    Image.fromarray(np.stack([y % 256 // 2, x % 256 // 2, (x + y) // 6], -1).astype(np.uint8)).save(tmp_path / "a.jpg")
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    small, exact = (cover(tmp_path / name, (60, 90)).float() for name in ("a.jpg", "a.png"))
    assert (small - exact).abs().mean() < 3


def test_unreadable_files_are_named_and_raised_or_skipped(tmp_path):
    make_folder(tmp_path)
    good = (tmp_path / "sea" / "1.png").read_bytes()
    (tmp_path / "sea" / "1.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "field" / "0.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"unreadable image file .*0\.png"):
        BackgroundBank.from_folder(tmp_path, 8)
    with pytest.warns(UserWarning, match=r"skipped 2 of 6 images: .*0\.png.*1\.png"):
        bank = BackgroundBank.from_folder(tmp_path, 8, on_error="skip")
    assert bank.labels.tolist() == [0, 0, 1, 1]
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with (
        pytest.raises(ValueError, match="root: expected readable images, got 6 that are not"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        BackgroundBank.from_folder(tmp_path, 8, on_error="skip")


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: expected <category>/\*.jpg in .*, got an empty folder"):
        BackgroundBank.from_folder(tmp_path, 8)
    with pytest.raises(FileNotFoundError, match="which is not there"):
        BackgroundBank.from_folder(tmp_path / "nowhere", 8)
    make_folder(tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(FileNotFoundError, match=r"got none in \['void'\]"):
        BackgroundBank.from_folder(tmp_path, 8)
    assert BackgroundBank.from_folder(tmp_path, 8, on_error="skip").classes == ("field", "sea", "void")
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'skip', got 'ignore'"):
        BackgroundBank.from_folder(tmp_path, 8, on_error="ignore")
    with pytest.raises(ValueError, match=r"size: expected \(H, W\)"):
        BackgroundBank.from_folder(tmp_path, 0)


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


def test_save_and_load(tmp_path):
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    bank = BackgroundBank(images, [0, 1, 1, 0], mean=[0.1] * 3, std=[0.2] * 3, classes=["a", "b"])
    bank.save(tmp_path / "bank.pt")
    loaded = BackgroundBank.load(tmp_path / "bank.pt")
    assert torch.equal(loaded.images, images)
    assert loaded.classes == ("a", "b")
    index = torch.tensor([2, 0])
    assert torch.equal(loaded.float_images(index), bank.float_images(index))
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="path: expected a file written by BackgroundBank.save"):
        BackgroundBank.load(tmp_path / "other.pt")


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


def test_real_scenes(shared_data):
    bank = BackgroundBank.from_folder(shared_data("sun_scenes"), (32, 32))
    assert len(bank) == 1958
    assert bank.num_classes == 17
    assert bank.images.float().std() > 30
