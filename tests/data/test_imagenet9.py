"""ImageNet-9: the layout of the release on files made here, the class table, and the challenge's scoring."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from torch_bgdebias.data import (
    IMAGENET9_RANGES,
    ImageNet9,
    MaskSizeError,
    UnreadableImageError,
    imagenet9_prediction,
    to_imagenet9,
)


@pytest.fixture
def root(tmp_path):
    """Two pictures of three classes, a mixed variant of them, masks as arrays."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("00_dog", "02_wheeled vehicle", "08_fish")):
        for i in range(2):
            stem = f"n0{number}000000_{i}"
            mask = np.zeros((12, 12), dtype=bool)
            mask[2:6, 1 : 4 + i] = True
            for folder in (f"original/val/{name}", f"mixed_rand/val/{name}", f"fg_mask/val/{name}"):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"original/val/{name}/{stem}.JPEG", quality=95)
            mixed = f"mixed_rand/val/{name}/fg_{stem}_bg_n09999999_77.JPEG"
            Image.fromarray(pixels[::-1].copy()).save(tmp_path / mixed, quality=95)
            np.save(tmp_path / f"fg_mask/val/{name}/{stem}.npy", mask)
    return tmp_path


def test_original(root):
    data = ImageNet9(root)
    assert len(data) == 6
    assert data.labels == [0, 0, 2, 2, 8, 8]
    assert data.classes[2] == "wheeled vehicle"
    assert len(data.classes) == 9
    assert data.absent == ["bird", "reptile", "carnivore", "insect", "musical instrument", "primate"]
    image, label, mask = data[3]
    assert (image.shape, mask.shape, label) == ((3, 12, 12), (1, 12, 12), 2)
    assert image.dtype == mask.dtype == torch.float32
    assert mask.sum() == 16
    assert set(mask.unique().tolist()) == {0, 1}
    assert mask[0, 2:6, 1:5].all()
    read = np.array(Image.open(data.samples[3].image)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(image.numpy(), read, atol=1e-6)


def test_mixed_variants_have_their_foregrounds_mask(root):
    data = ImageNet9(root, "mixed_rand")
    assert [s.mask.stem for s in data.samples] == [f"n0{n}000000_{i}" for n in range(3) for i in range(2)]
    image, label, mask = next(iter(DataLoader(data, batch_size=6)))
    assert (image.shape, mask.shape) == ((6, 3, 12, 12), (6, 1, 12, 12))
    assert label.tolist() == [0, 0, 2, 2, 8, 8]


def test_size_and_transform_keep_image_and_mask_in_step(root):
    data = ImageNet9(root, size=6, transform=lambda image, mask: (image.flip(2), mask.flip(2)))
    image, _, mask = data[0]
    plain, _, plain_mask = ImageNet9(root, size=(6, 6))[0]
    assert torch.equal(image, plain.flip(2))
    assert torch.equal(mask, plain_mask.flip(2))
    assert mask.shape == (1, 6, 6)


def test_without_masks(root):
    data = ImageNet9(root, masks=False)
    assert len(data[0]) == 2
    for path in (root / "fg_mask").rglob("*.npy"):
        path.unlink()
    (root / "fg_mask").rename(root / "elsewhere")
    assert not ImageNet9(root, "mixed_rand").has_masks
    with pytest.raises(FileNotFoundError, match=r"6 of 6 images have no mask: .*n00000000_0\.npy"):
        ImageNet9(root, masks=True)
    with pytest.raises(ValueError, match="transform: expected only with masks"):
        ImageNet9(root, transform=lambda image, mask: (image, mask))


def test_missing_masks_are_listed_or_skipped(root):
    (root / "fg_mask/val/08_fish/n02000000_1.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 images have no mask: .*08_fish/n02000000_1\.npy"):
        ImageNet9(root, "mixed_rand")
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 images without a mask: n02000000_1\.JPEG"):
        data = ImageNet9(root, on_error="skip")
    assert len(data) == 5
    assert [(path.name, why) for path, why in data.skipped] == [("n02000000_1.JPEG", "no mask")]


def test_bad_folders(root):
    with pytest.raises(ValueError, match="variant: expected one of 'original', 'only_fg'"):
        ImageNet9(root, "mixed")
    with pytest.raises(FileNotFoundError, match=r"expected only_fg/val/ in it, found fg_mask, mixed_rand, original"):
        ImageNet9(root, "only_fg")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ImageNet9(root / "nothing")
    np.save(root / "fg_mask/val/00_dog/n00000000_0.npy", np.zeros((3, 3), bool))
    with pytest.raises(MaskSizeError, match=r"n00000000_0\.npy: expected the size \(12, 12\) of .* got \(3, 3\)"):
        ImageNet9(root)[0]
    (root / "fg_mask/val/00_dog/n00000000_0.npy").write_bytes(b"nothing")
    with pytest.raises(UnreadableImageError, match=r"unreadable mask file .*n00000000_0\.npy"):
        ImageNet9(root)[0]
    (root / "original/val/dogs").mkdir()
    with pytest.raises(ValueError, match="expected class folders called 00_dog"):
        ImageNet9(root)


def test_table_is_the_challenges(shared_data):
    official = json.loads((shared_data("imagenet9") / "in_to_in9.json").read_text())
    assert len(official) == 1000
    one_hot = torch.eye(1000)
    assert imagenet9_prediction(one_hot).tolist() == [official[str(i)] for i in range(1000)]


def test_ranges_are_in_order_and_apart():
    ranges = [pair for pairs in IMAGENET9_RANGES.values() for pair in pairs]
    numbers = [n for first, last in ranges for n in range(first, last + 1)]
    assert len(numbers) == len(set(numbers)) == 370
    assert min(numbers) == 0
    assert max(numbers) < 1000
    for pairs in IMAGENET9_RANGES.values():
        assert list(pairs) == sorted(pairs)


def test_ten_logits_answer_as_the_challenge_does():
    logits = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0))
    ten = to_imagenet9(logits)
    assert ten.shape == (400, 10)
    expected = imagenet9_prediction(logits)
    assert {-1, 0, 1} <= set(expected.tolist())
    answer = ten.argmax(1)
    assert torch.equal(torch.where(answer == 9, -1, answer), expected)
    for i in (0, 7):  # a loop over the table
        for label, ranges in enumerate(IMAGENET9_RANGES.values()):
            assert ten[i, label] == max(float(logits[i, a : b + 1].max()) for a, b in ranges)
    half = to_imagenet9(logits[:2].half())
    assert half.dtype == torch.float16
    single = logits[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(to_imagenet9, single, fast_mode=True)


def test_nine_class_models_answer_for_themselves():
    assert imagenet9_prediction(torch.eye(9)).tolist() == list(range(9))


def test_bad_logits():
    with pytest.raises(ValueError, match=r"logits: expected shape \(B, 1000\), got float32 tensor of shape \(2, 10\)"):
        imagenet9_prediction(torch.zeros(2, 10))
    with pytest.raises(ValueError, match=r"logits: expected shape \(B, 1000\)"):
        to_imagenet9(torch.zeros(2, 9))
    with pytest.raises(TypeError, match="logits: expected a float tensor"):
        to_imagenet9(torch.zeros(2, 1000, dtype=torch.int64))
