"""Published layouts, written small: VOC, Oxford pets, ImageNet-S, Waterbirds, Places365."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.data import (
    CorrelatedBackgrounds,
    ImageNetS,
    MaskSizeError,
    OxfordPets,
    UnreadableImageError,
    VOCObjects,
    Waterbirds,
    load_places365,
)

H, W = 20, 30


def save(path, pixels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette([v for c in range(256) for v in (c * 37 % 256, c * 91 % 256, c * 151 % 256)])
        assert picture.mode == "P"
    picture.save(path)
    return path


def photo(path, seed=0, size=(H, W)):
    return save(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


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


@pytest.fixture
def waterbirds(tmp_path):
    root = tmp_path / "waterbird_complete95_forest2water2"
    rows = []
    for i in range(6):
        name = f"{i:03d}.Gull/Gull_{i}.jpg"
        photo(root / name, i)
        cover = np.zeros((H, W), np.uint8)
        cover[5:10, 5:15] = 204
        save((tmp_path / "segmentations" / name).with_suffix(".png"), cover)
        rows.append([i + 1, name, i % 2, i // 2, (i + 1) % 2, "/o/ocean/00001.jpg"])
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["img_id", "img_filename", "y", "split", "place", "place_filename"], *rows])
    return root, tmp_path / "segmentations"


def test_waterbirds(waterbirds):
    root, masks = waterbirds
    data = Waterbirds(root, "val", masks=masks, size=(10, 15))
    assert (data.labels, data.places) == ([0, 1], [1, 0])
    batch = next(iter(DataLoader(data, batch_size=2)))
    spec = BatchSpec(background_label=3)
    assert spec.background_label_of(batch).tolist() == [1, 0]
    assert spec.mask_of(batch).shape == (2, 1, 10, 15)
    torch.testing.assert_close(Waterbirds(root, masks=masks)[0][2].max(), torch.tensor(0.8))
    image, label, place = Waterbirds(root, "test")[1]
    assert (image.shape, label, place) == ((3, H, W), 1, 0)


def test_waterbirds_trouble(waterbirds, tmp_path):
    root, masks = waterbirds
    with pytest.raises(ValueError, match=r"split: expected one of 'train', 'val', 'test', got 'dev'"):
        Waterbirds(root, "dev")
    with pytest.raises(FileNotFoundError, match=r"expected metadata.csv in it, found "):
        Waterbirds(tmp_path)
    next(masks.glob("001*/*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are missing: .*001.Gull/Gull_1.png"):
        Waterbirds(root, masks=masks)
    assert len(Waterbirds(root)) == 2
    (root / "000.Gull/Gull_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are missing: .*Gull_0.jpg"):
        Waterbirds(root)
    (root / "metadata.csv").write_text("img_filename,y,split\na.jpg,0,0\n")
    with pytest.raises(ValueError, match=r"expected the columns \['img_filename', 'place', 'split', 'y'\]"):
        Waterbirds(root)
    (root / "metadata.csv").write_text("img_filename,y,split,place\na.jpg,0,0,0\n")
    with pytest.raises(ValueError, match=r"has no sample of 'test'"):
        Waterbirds(root, "test")


@pytest.fixture
def places(tmp_path):
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/d/desert/sand 1\n/o/ocean 2\n")
    val, train = [], []
    for i in range(6):
        photo(tmp_path / f"val_256/Places365_val_{i:08d}.jpg", i, size=(25 + i, 40))
        val.append(f"Places365_val_{i:08d}.jpg {i % 3}")
        name = ("/a/airfield", "/d/desert/sand", "/o/ocean")[i % 3]
        photo(tmp_path / f"data_256_standard{name}/{i:08d}.jpg", 50 + i)
        train.append(f"{name}/{i:08d}.jpg {i % 3}")
    (tmp_path / "places365_val.txt").write_text("\n".join(val) + "\n")
    (tmp_path / "places365_train_standard.txt").write_text("\n".join(train) + "\n")
    return tmp_path


@pytest.mark.parametrize("split", ["val", "train-standard"])
def test_places365(places, split):
    scenes = load_places365(places, (16, 24), split=split)
    assert scenes.images.shape == (6, 3, 16, 24)
    assert scenes.images.dtype == torch.uint8
    assert scenes.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert scenes.names == ("airfield", "desert/sand", "ocean")
    two = load_places365(places, (16, 24), split=split, categories=("ocean", "airfield"), per_category=1)
    assert two.names == ("ocean", "airfield")
    assert torch.equal(two.images, scenes.images[[4, 0]])


def test_places365_serves_as_a_bank(places):
    item = (torch.zeros(3, 8, 8), 1, torch.zeros(1, 8, 8))
    image, _, _, category = CorrelatedBackgrounds([item], load_places365(places, 8), 1.0)[0]
    assert category == 1
    assert image.std() > 0.05


def test_places365_trouble(places, tmp_path):
    with pytest.raises(ValueError, match=r"categories: moon not in .*categories_places365.txt"):
        load_places365(places, 8, categories=["moon"])
    with pytest.raises(ValueError, match=r"split: expected one of"):
        load_places365(places, 8, split="test")
    with pytest.raises(FileNotFoundError, match=r"expected places365_train_challenge.txt in it"):
        load_places365(places, 8, split="train-challenge")
    with pytest.raises(FileNotFoundError, match=r"6 of 6 files are missing: .*val_large"):
        load_places365(places, 8, small=False)
    (places / "val_256/Places365_val_00000004.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.raises(UnreadableImageError, match=r"Places365_val_00000004.jpg"):
        load_places365(places, 8)
