"""Published layouts, written small: VOC, Oxford pets, ImageNet-S, Waterbirds, Places365."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_pictures import H, W, photo, save
from torch.utils.data import DataLoader

from torch_bgdebias.data import (
    ImageNetS,
    MaskSizeError,
    OxfordPets,
    UnreadableImageError,
    VOCObjects,
)


def regions(**boxes):
    """Index picture from value=(top, left, bottom, right); names are v<value>."""
    pixels = np.zeros((H, W), np.int64)
    for name, (top, left, bottom, right) in boxes.items():
        pixels[top:bottom, left:right] = int(name[1:])
    return pixels


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    maps = {
        "2007_a": regions(v255=(2, 2, 12, 12), v8=(3, 3, 11, 11), v15=(14, 20, 18, 28)),  # cat 64, person 32
        "2007_b": regions(v12=(0, 0, 5, 5), v1=(10, 10, 20, 30)),  # dog 25, aeroplane 200
        "2007_c": regions(v255=(0, 0, 20, 30)),  # nothing but border
        "2007_d": regions(v20=(0, 0, 2, 5), v3=(5, 0, 7, 5)),  # a tie of bird and tvmonitor
    }
    for i, (name, pixels) in enumerate(maps.items()):
        photo(root / f"JPEGImages/{name}.jpg", i)
        save(root / f"SegmentationClass/{name}.png", pixels.astype(np.uint8), palette=True)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(maps) + "\n")
    return tmp_path


def test_voc_takes_the_dominating_object(voc):
    data = VOCObjects(voc)
    assert [data.classes[c] for c in data.labels] == ["cat", "aeroplane", "bird"]
    assert (len(data), data.skipped, len(data.classes)) == (3, 1, 20)
    image, label, cover = data[0]
    assert (image.shape, cover.shape, label) == ((3, H, W), (1, H, W), 7)
    expected = torch.zeros(1, H, W)
    expected[:, 3:11, 3:11] = 1
    assert torch.equal(cover, expected)
    assert data[1][2].sum() == 200


def test_voc_resized_batches(voc):
    image, label, cover = next(iter(DataLoader(VOCObjects(voc, size=(10, 15)), batch_size=3)))
    assert image.shape == (3, 3, 10, 15)
    assert label.tolist() == [7, 0, 2]
    torch.testing.assert_close(cover[1, 0, 5:, 5:], torch.ones(5, 10), atol=0.3, rtol=0)


def test_voc_trouble(voc, tmp_path):
    with pytest.raises(RuntimeError, match="Dataset not found"):
        VOCObjects(tmp_path / "absent")
    save(voc / "VOCdevkit/VOC2012/SegmentationClass/2007_a.png", regions(v8=(3, 3, 9, 9)).astype(np.uint8)[:10])
    with pytest.raises(
        MaskSizeError, match=r"mask of .*2007_a.jpg: expected the image's size \(20, 30\) .* got \(10, 30\)"
    ):
        VOCObjects(voc)[0]
    (voc / "VOCdevkit/VOC2012/SegmentationClass/2007_b.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"2007_b.png"):
        VOCObjects(voc)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "oxford-iiit-pet"
    lines = ["Abyssinian_1 1 1 1", "beagle_7 2 2 1"]
    trimap = np.full((H, W), 2, np.uint8)
    trimap[4:12, 5:15] = 3
    trimap[5:11, 6:14] = 1
    for i, line in enumerate(lines):
        name = line.split()[0]
        photo(root / f"images/{name}.jpg", i)
        save(root / f"annotations/trimaps/{name}.png", trimap)
    (root / "annotations/trainval.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_pets_trimaps_become_masks(pets):
    data = OxfordPets(pets)
    assert (len(data), data.classes, data.labels) == (2, ["Abyssinian", "Beagle"], [0, 1])
    _, label, cover = data[1]
    assert label == 1
    assert cover.sum() == 80
    assert OxfordPets(pets, boundary=0.0)[0][2].sum() == 48
    torch.testing.assert_close(OxfordPets(pets, boundary=0.5)[0][2][0, 4, 5], torch.tensor(128 / 255))
    binary = OxfordPets(pets, target="binary-category", size=8)
    assert binary.classes == ["Cat", "Dog"]
    assert binary[1][1] == 1
    assert binary[0][0].shape == (3, 8, 8)


def test_pets_trouble(pets, tmp_path):
    with pytest.raises(ValueError, match=r"target: expected one of 'category', 'binary-category', got 'breed'"):
        OxfordPets(pets, target="breed")
    with pytest.raises(ValueError, match=r"boundary: expected a mask value in \[0, 1\], got 2"):
        OxfordPets(pets, boundary=2)
    with pytest.raises(RuntimeError, match="Dataset not found"):
        OxfordPets(tmp_path / "absent")


WNIDS = [f"n0{k:07d}" for k in range(1, 301)]


def colours(ids):
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1).astype(np.uint8)


@pytest.fixture
def imagenet_s(tmp_path):
    root = tmp_path / "ImageNetS300"
    for k in (1, 2, 300):  # 300 needs the green channel
        wnid = WNIDS[k - 1]
        ids = regions(**{"v1000": (0, 0, 3, 3), "v7": (15, 20, 20, 30), f"v{k}": (5, 5, 10, 15)})
        photo(root / f"validation/{wnid}/ILSVRC2012_val_{k:08d}.JPEG", k)
        save(root / f"validation-segmentation/{wnid}/ILSVRC2012_val_{k:08d}.png", colours(ids))
    return root


def test_imagenet_s_decodes_the_class_id(imagenet_s, tmp_path):
    expected = torch.zeros(1, H, W)
    expected[:, 5:10, 5:15] = 1
    listing = tmp_path / "categories.txt"
    listing.write_text("\n".join(reversed(WNIDS)) + "\n")
    for categories in (WNIDS, listing, str(listing)):
        data = ImageNetS(imagenet_s, categories=categories)
        assert data.labels == [0, 1, 299]
        assert data.classes == WNIDS
        for i in range(3):
            assert torch.equal(data[i][2], expected)
    image, label, cover = ImageNetS(imagenet_s, categories=WNIDS, size=10)[2]
    assert (image.shape, label, cover.shape) == ((3, 10, 10), 299, (1, 10, 10))


def test_imagenet_s_with_incomplete_folders_is_noticed(imagenet_s):
    data = ImageNetS(imagenet_s)  # three folders: the third would be class 3, not 300
    assert data.labels == [0, 1, 2]
    with pytest.raises(ValueError, match=r"expected pixels of class id 3, got 0, 7, 300, 1000; pass categories="):
        data[2]


def test_imagenet_s_trouble(imagenet_s):
    with pytest.raises(FileNotFoundError, match=r"expected the folder test, found validation"):
        ImageNetS(imagenet_s, "test")
    with pytest.raises(ValueError, match=rf"categories: expected every folder of .*, got none for {WNIDS[299]}"):
        ImageNetS(imagenet_s, categories=WNIDS[:2])
    next(imagenet_s.glob(f"validation-segmentation/{WNIDS[1]}/*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 files are missing: .*00000002.png"):
        ImageNetS(imagenet_s, categories=WNIDS)
