from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from experiments.wordnet.run import WordNet, imagenet, table
from torch_bgdebias.backgrounds import IMAGENET_OBJECTS, BackgroundBank, forbidden_objects
from torch_bgdebias.masks.formats.voc import VOC_CLASSES

COCO = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,
bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,
sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,
bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,
toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,
teddy bear,hair drier,toothbrush
"""
WORDNET = Path(os.environ.get("WORDNET_NOUNS", "/usr/share/wordnet"))


def test_every_class_of_voc_and_coco_has_its_row():
    names = [name.strip() for name in COCO.replace("\n", "").split(",")]
    assert len(names) == 80
    assert set(forbidden_objects(VOC_CLASSES)) == set(range(20))
    with pytest.warns(UserWarning, match="ImageNet has no class for fire hydrant, giraffe, .*toothbrush"):
        chosen = forbidden_objects(names)
    assert len(chosen) + sum(not ids for ids in IMAGENET_OBJECTS.values()) == 80 == len(IMAGENET_OBJECTS)
    assert chosen[names.index("couch")] == forbidden_objects(["sofa"])[0]


def test_ids_are_imagenets():
    pytest.importorskip("timm")
    listed = imagenet()
    assert {wnid for ids in IMAGENET_OBJECTS.values() for wnid in ids} <= set(listed)
    # ImageNet's own order puts all dogs side by side, 151 to 268, and Egyptian cats, lions and tigers at 281 to 293
    assert list(IMAGENET_OBJECTS["dog"]) == listed[151:269]
    assert list(IMAGENET_OBJECTS["cat"]) == listed[281:294]
    birds = {*range(7, 25), *range(80, 101), *range(127, 147)}
    assert {listed.index(wnid) for wnid in IMAGENET_OBJECTS["bird"]} == birds


@pytest.mark.skipif(not (WORDNET / "data.noun").is_file(), reason="WordNet is not installed (Debian's wordnet-base)")
def test_the_table_is_what_wordnet_says():
    pytest.importorskip("timm")
    assert {name: tuple(ids) for name, ids in table(WordNet(WORDNET), imagenet()).items()} == dict(IMAGENET_OBJECTS)


def test_a_small_wordnet_is_read(tmp_path):
    """dog 2 has a hyponym, that one an instance; a car of the same file is neither."""
    (tmp_path / "index.noun").write_text("  1 licence\ndog n 2 1 ~ 2 0 00000009 00000001\ncar n 1 1 @ 1 0 00000004\n")
    lines = [
        "00000001 05 n 01 dog 0 001 ~ 00000002 n 0000 | an animal",
        "00000002 05 n 02 poodle 0 curly_dog 0 002 @ 00000001 n 0000 ~i 00000003 n 0000 | a dog",
        "00000003 05 n 01 Rex 0 001 @i 00000002 n 0000 | a poodle", "00000004 06 n 01 car 0 000 | a vehicle",
        "00000009 18 n 01 dog 0 000 | a person",
    ]  # fmt: skip
    (tmp_path / "data.noun").write_text("  1 licence\n" + "\n".join(lines) + "\n")
    known = ["n00000003", "n00000004", "n00000001"]
    assert table(WordNet(tmp_path), known, {"dog": ("dog 2",), "car": ("car 1",)}) == {
        "dog": ["n00000003", "n00000001"], "car": ["n00000004"],
    }  # fmt: skip


def test_backgrounds_that_show_the_object_are_kept_from_it():
    """A classifier of ImageNet's classes that takes every bright picture for a beagle."""
    pytest.importorskip("timm")
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]).mul(255).byte()

    def beagle(image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(image), 1000)
        logits[:, 162] = image.mean((1, 2, 3)) * 2 - 1
        logits[:, 900:905] = 0.5
        return logits

    filtered = BackgroundBank(images).filter(beagle, forbidden_objects(["dog", "cat"]))
    allowed = ~filtered.forbidden_pairs.table(torch.tensor([0, 1]), 2)
    assert allowed.tolist() == [[True, False], [True, True]]


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match=r"expected names of VOC or COCO, got \['unicorn'\]"):
        forbidden_objects(["dog", "unicorn"])
