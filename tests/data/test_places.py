"""Places365 as published, written small."""

from __future__ import annotations

import pytest
import torch
from small_pictures import photo

from torch_bgdebias.data import (
    CorrelatedBackgrounds,
    UnreadableImageError,
    load_places365,
)


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
    listed = (places / "places365_val.txt").read_text()
    for content, file in (
        (b"a.jpg\n", "places365_val"),
        (b"a.jpg x\n", "places365_val"),
        (b"\xff 0\n", "categories_pl"),
    ):
        next(places.glob(f"{file}*.txt")).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{file}.*txt: expected a name and a number in each line"):
            load_places365(places, 8)
        (places / "places365_val.txt").write_text(listed)
    (places / "categories_places365.txt").write_text("/a/airfield 0\n/d/desert/sand 1\n/o/ocean 2\n")
    (places / "val_256/Places365_val_00000004.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.raises(UnreadableImageError, match=r"Places365_val_00000004.jpg"):
        load_places365(places, 8)
