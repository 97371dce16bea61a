"""`make_masks`: what is written, what a kill leaves, another maker's folder, hints by picture, what fails."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder, UnreadableImageError
from torch_bgdebias.masks import Licence, MadeMasks, MakingSettings, MaskMakingError, make_masks
from torch_bgdebias.writing import is_unfinished

NAMES = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "dog/e.png")


class Red:
    """Red is object; notes what it was shown, and can be made to fail."""

    def __init__(self, name="red", takes=(), needs=(), fail_at=None, spoil=None):
        self.name, self.takes, self.needs = name, frozenset(takes), frozenset(needs)
        self.licence = Licence("none", "a test")
        self.calls, self.hints, self.fail_at, self.spoil = 0, [], fail_at, spoil

    def __call__(self, images, hints):
        self.calls += 1
        self.hints += list(zip(hints.texts, hints.boxes, strict=True))
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        mask = images[:, 0].clone()
        if self.spoil is not None:
            mask[images[:, 1].amax((1, 2)) > 0.5] = self.spoil
        return MadeMasks(mask, torch.full((len(images),), 0.75))


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        pixels = np.zeros((10, 12 + 2 * (i == 4), 3), np.uint8)
        pixels[2:6, 3 : 7 + i % 3, 0] = 255
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    return tmp_path


def contents(root):
    return {
        p.relative_to(root): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files(root)
    }


def files(root):
    return sorted(path for path in Path(root).rglob("*") if path.is_file())


def manifest(out):
    return json.loads((out / "masks.json").read_text())


def test_masks_manifest_and_untouched_pictures(folder):
    before = contents(folder / "images")
    outcome = make_masks(folder / "images", folder / "masks", Red(), settings=MakingSettings(batch_size=3))
    assert contents(folder / "images") == before
    assert (outcome.written, outcome.unchanged, outcome.empty, outcome.skipped) == (5, 0, [], [])
    data = MaskedImageFolder(folder)
    for image, _, mask in data:
        assert torch.equal(image[:1], mask)
    written = manifest(folder / "masks")
    assert written["maker"] == "red"
    assert written["licence"] == {"name": "none", "source": "a test", "restricted": False, "gated": False}
    assert written["confidence"] == dict.fromkeys(NAMES, 0.75)
    assert not is_unfinished(folder / "masks")


def test_a_run_that_was_stopped_goes_on(folder):
    stopped = Red(fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        make_masks(folder / "images", folder / "masks", stopped, settings=MakingSettings(batch_size=1))
    assert is_unfinished(folder / "masks")
    there = contents(folder / "masks")
    assert len([path for path in there if path.suffix == ".png"]) == 2
    again = Red()
    outcome = make_masks(folder / "images", folder / "masks", again, settings=MakingSettings(batch_size=1))
    assert (outcome.written, outcome.unchanged, again.calls) == (3, 2, 3)
    assert outcome.confidence == dict.fromkeys(NAMES, 0.75), "those of the first run too"
    assert all(contents(folder / "masks")[path] == there[path] for path in there if path.suffix == ".png")
    assert not [path for path in files(folder / "masks") if path.suffix == ".part"]


def test_a_folder_that_another_maker_has_begun(folder):
    with pytest.raises(KeyboardInterrupt):
        make_masks(folder / "images", folder / "masks", Red("blue", fail_at=2), settings=MakingSettings(batch_size=2))
    with pytest.raises(FileExistsError, match=r"OUT: .*masks holds 2 of 5 masks by blue with .*; pass --overwrite, or"):
        make_masks(folder / "images", folder / "masks", Red())
    with pytest.raises(FileExistsError, match="by blue with"):
        make_masks(folder / "images", folder / "masks", Red("blue"), settings=MakingSettings(threshold=0.5))
    outcome = make_masks(folder / "images", folder / "masks", Red(), settings=MakingSettings(overwrite=True))
    assert outcome.written == 5
    assert manifest(folder / "masks")["maker"] == "red"


def test_masks_that_somebody_drew_are_kept(folder):
    (folder / "masks/cat").mkdir(parents=True)
    Image.fromarray(np.full((10, 12), 255, np.uint8)).save(folder / "masks/cat/a.png")
    outcome = make_masks(folder / "images", folder / "masks", Red())
    assert (outcome.written, outcome.unchanged) == (4, 1)
    assert "cat/a.png" not in outcome.confidence
    assert np.asarray(Image.open(folder / "masks/cat/a.png")).min() == 255


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (None, ["cat", "cat", "dog"]),
        ("a photo of a {class}", ["a photo of a cat", "a photo of a cat", "a photo of a dog"]),
        ("bird", ["bird"] * 3),
        ("", [None] * 3),
    ],
)
def test_what_the_object_is_called(folder, prompt, texts):
    maker = Red(takes={"text"})
    make_masks(folder / "images", folder / "masks", maker, settings=MakingSettings(prompt=prompt, batch_size=1))
    assert [text for text, _ in maker.hints][:3] == texts


def test_pictures_without_what_the_maker_needs(folder):
    with pytest.raises(
        MaskMakingError, match=r"red: expected what the object is called, for 2 of 2 pictures nobody says"
    ):
        make_masks(folder / "images/cat", folder / "masks", Red(takes={"text"}, needs={"text"}))
    with pytest.raises(MaskMakingError, match="red: expected boxes; give --boxes FILE"):
        make_masks(folder / "images", folder / "masks", Red(takes={"boxes"}, needs={"boxes"}))
    rows = [f"{name},2,1,9,8" for name in NAMES[:4]]
    (folder / "boxes.csv").write_text("\n".join(["image,left,top,right,bottom", *rows]))
    settings = MakingSettings(boxes=folder / "boxes.csv")
    with pytest.raises(MaskMakingError, match=r"boxes.csv: 1 of 5 pictures have no box: dog/e.png; it has cat/a.png"):
        make_masks(folder / "images", folder / "masks", Red(takes={"boxes"}), settings=settings)
    assert not (folder / "masks").exists(), "said before any work"
    maker = Red(takes={"boxes"})
    settings = MakingSettings(boxes=folder / "boxes.csv", on_error="skip")
    outcome = make_masks(folder / "images", folder / "masks", maker, settings=settings)
    assert outcome.written == 4
    assert "expected a box, found none" in outcome.skipped[0][1]
    assert all(torch.equal(boxes, torch.tensor([[1, 2, 8, 9]])) for _, boxes in maker.hints)


def test_a_maker_that_knows_no_boxes_gets_them_all_the_same(folder):
    rows = [f"{name},3,2,5,6" for name in NAMES]
    (folder / "boxes.csv").write_text("\n".join(["image,left,top,right,bottom", *rows]))
    make_masks(folder / "images", folder / "masks", Red(), settings=MakingSettings(boxes=folder / "boxes.csv"))
    assert float(MaskedImageFolder(folder)[4][2].sum()) == 8


def test_what_is_no_mask_is_skipped_alone(folder):
    pixels = np.asarray(Image.open(folder / "images/cat/b.png")).copy()
    pixels[..., 1] = 200
    Image.fromarray(pixels).save(folder / "images/cat/b.png")
    (folder / "images/dog/broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match="broken.png"):
        make_masks(folder / "images", folder / "masks", Red())
    with pytest.raises(MaskMakingError, match=r"cat/b.png.*: red: expected finite values, got NaN or infinity"):
        make_masks(folder / "images/cat", folder / "other", Red(spoil=float("nan")))
    settings = MakingSettings(on_error="skip", overwrite=True)
    outcome = make_masks(folder / "images", folder / "masks", Red(spoil=float("nan")), settings=settings)
    assert outcome.written == 4
    assert sorted(path.name for path, _ in outcome.skipped) == ["b.png", "broken.png"]
    assert len(manifest(folder / "masks")["skipped"]) == 2


def test_empty_masks_are_told_and_faint_ones_are_empty(folder):
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[2:4, 2:4, 0] = 9  # nine in 255: read as labels it would be an object
    Image.fromarray(pixels).save(folder / "images/cat/a.png")
    outcome = make_masks(folder / "images", folder / "masks", Red())
    assert outcome.empty == ["cat/a.png"]
    assert float(MaskedImageFolder(folder)[0][2].sum()) == 0


def test_hard_masks(folder):
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[2:4, 2:4, 0], pixels[5:8, 5:8, 0] = 140, 250
    Image.fromarray(pixels).save(folder / "images/cat/a.png")
    make_masks(folder / "images", folder / "masks", Red(), settings=MakingSettings(threshold=0.6))
    mask = np.asarray(Image.open(folder / "masks/cat/a.png"))
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == 9


def test_bad_settings_and_folders(folder):
    for options in ({"batch_size": 0}, {"on_error": "ignore"}, {"threshold": 2.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            MakingSettings(**options)
    with pytest.raises(FileNotFoundError, match="expected a folder with pictures, found none"):
        make_masks(folder / "nowhere", folder / "masks", Red())
    with pytest.raises(ValueError, match="OUT: expected another folder than IN"):
        make_masks(folder / "images", folder / "images", Red())
