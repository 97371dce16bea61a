from __future__ import annotations

import pytest
import torch
from places365 import CATEGORIES

from torch_bgdebias.backgrounds import (
    PLACES_GROUPS,
    SCENES_WITH,
    BackgroundBank,
    StreamedBackgroundBank,
    forbid_scenes,
    scene_groups,
)
from torch_bgdebias.masks.formats.voc import VOC_CLASSES
from torch_bgdebias.swap import BackgroundSwap

#: a folder's way of writing Places365's names
NAMES = ["harbor", "forest_broadleaf", "Glacier", "street", "lobby"]


def bank(names: list[str] | None = None, each: int = 3) -> BackgroundBank:
    names = NAMES if names is None else names
    labels = torch.arange(len(names)).repeat_interleave(each)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    return BackgroundBank(images, labels, classes=names)


def test_tables_name_categories_of_places365():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 365
    assert len(PLACES_GROUPS) == 10
    members = [name for names in PLACES_GROUPS.values() for name in names]
    assert len(members) == len(set(members))  # in one group alone
    assert set(members) <= set(CATEGORIES)
    assert set(SCENES_WITH) == set(VOC_CLASSES)
    for names in SCENES_WITH.values():
        assert len(names) == len(set(names)) > 1
        assert set(names) <= set(CATEGORIES)


def test_groups_are_banks_of_their_categories():
    groups = scene_groups(bank())
    assert {name: own.images[:, 0, 0, 0].tolist() for name, own in groups.items()} == {
        "forest": [3, 4, 5], "snow": [6, 7, 8], "road": [9, 10, 11],
    }  # fmt: skip
    assert groups["snow"].classes == tuple(NAMES)
    own = scene_groups(bank(), {"outdoors": ["harbor", "street"], "none": ["kitchen"]})
    assert {name: len(members) for name, members in own.items()} == {"outdoors": 6}


def test_objects_keep_away_from_scenes_that_show_them():
    whole = bank()
    restricted = forbid_scenes(whole, ["boat", "couch", "cat"])
    assert restricted.images is whole.images
    assert not whole.restricted
    label = torch.arange(3).repeat(400)
    drawn = restricted.labels[
        restricted.draw(1200, foreground_labels=label, generator=torch.Generator().manual_seed(0))
    ]
    seen = [{NAMES[i] for i in drawn[label == k].tolist()} for k in range(3)]
    assert seen == [set(NAMES) - {"harbor"}, set(NAMES) - {"lobby"}, set(NAMES)]
    swap = BackgroundSwap(restricted)
    swap(torch.zeros(60, 3, 4, 4), torch.zeros(60, 1, 4, 4), torch.zeros(60, dtype=torch.int64))
    assert 0 not in swap.drawn["background_label"].tolist()


def test_lists_that_were_there_stay():
    def dark(image: torch.Tensor) -> torch.Tensor:
        return torch.stack([1 - image.mean((1, 2, 3)), (image[:, 0, 0, 0] * 255 >= 12).float() * 2], 1)

    filtered = bank().filter(dark, {0: [1]}, top_k=1, class_names=["dark", "lobby"])
    both = forbid_scenes(filtered, ["boat", "sofa"])
    assert both.filters == filtered.filters
    allowed = ~both.forbidden_pairs.table(torch.tensor([0, 1]), len(both))
    names = [{NAMES[i] for i in both.labels[row].tolist()} for row in allowed]
    assert names == [set(NAMES) - {"harbor", "lobby"}, set(NAMES) - {"lobby"}]


@pytest.mark.parametrize("call", [scene_groups, lambda bank: forbid_scenes(bank, ["boat"])])
def test_banks_without_names_are_refused(call, tmp_path):
    with pytest.raises(ValueError, match="bank: expected one with labels and their names"):
        call(BackgroundBank(torch.zeros(2, 3, 4, 4)))
    with pytest.raises(TypeError, match="bank: expected a BackgroundBank, got"):
        call(torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="got a streamed one"):
        call(object.__new__(StreamedBackgroundBank))


def test_nothing_to_do_is_said():
    with pytest.raises(ValueError, match="groups: expected some of their categories"):
        scene_groups(bank(["casino"]))
    with pytest.raises(ValueError, match="no scene of the bank is one that shows any of"):
        forbid_scenes(bank(), ["giraffe", "horse"])
