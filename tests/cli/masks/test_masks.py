"""`bgdebias masks`: the layout it writes, the comparison it prints, and its answers to bad input."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="OpenCV is not installed (extra opencv)")

from torch_bgdebias.cli import masks
from torch_bgdebias.data import MaskedImageFolder, MaskSizeError, UnreadableImageError


def command(*words):
    parser = argparse.ArgumentParser()
    masks.add_parser(parser.add_subparsers())
    return masks.run(parser.parse_args(["masks", *map(str, words)]))


@pytest.fixture
def folder(tmp_path):
    """Red discs on blue noise, with their true masks in truth/."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :50]
    for name, centre in (("cat/a", 22), ("cat/b", 25), ("dog/c", 27)):
        truth = (y - 20) ** 2 + (x - centre) ** 2 < 100
        pixels = np.where(truth[..., None], [200, 40, 30], [30, 60, 180]) + rng.integers(-12, 13, (40, 50, 3))
        for path, values in ((f"images/{name}.png", pixels), (f"truth/{name}.png", truth * 255)):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / path)
    return tmp_path


def test_writes_what_masked_image_folder_reads(folder, capsys):
    assert command(folder / "images", folder / "masks") == 0
    assert capsys.readouterr().out.startswith("3 masks written to ")
    data = MaskedImageFolder(folder)
    assert len(data) == 3
    assert set(np.unique(np.array(Image.open(folder / "masks/dog/c.png")))) == {0, 255}
    assert abs(float(data[0][2].sum()) - 314) < 30
    assert not list(folder.rglob("*.part"))


def test_compare_prints_the_overlap(folder, capsys):
    assert command(folder, folder / "masks", "--compare", folder / "truth") == 0
    out = capsys.readouterr().out
    assert "intersection over union with 3 given masks: mean 1.000, median 1.000" in out
    assert "above 0.5: 100%" in out
    assert "  cat " in out
    assert "(2)" in out


def test_given_masks_with_several_labels_are_told(folder, capsys):
    """Of VOC's masks all objects together were what made ones were compared with."""
    for path in (folder / "truth").rglob("*.png"):
        inside = np.asarray(Image.open(path)) > 0
        labels = np.where(np.arange(inside.shape[1]) % 8 < 4, 7, 15)
        Image.fromarray(np.where(inside, labels, 0).astype(np.uint8)).save(path)
    assert command(folder, folder / "masks", "--compare", folder / "truth") == 0
    assert "note: " in (err := capsys.readouterr().err)
    assert "masks hold several labels in a picture" in err
    assert command(folder, folder / "masks", "--compare", folder / "truth", "--encoding", "index") == 0
    assert "several labels" not in capsys.readouterr().err


def test_the_overlap_is_the_overlap(folder, capsys):
    """Masks that are there are kept, so a known one gives a known number."""
    for name in ("cat/a", "cat/b", "dog/c"):
        target = folder / f"masks/{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        half = np.zeros((40, 50), np.uint8)
        half[:, :25] = 255
        Image.fromarray(half).save(target)
    command(folder, folder / "masks", "--compare", folder / "truth")
    out = capsys.readouterr().out
    assert "0 masks written" in out
    assert "3 kept as they were" in out
    shares = []
    for path in (folder / "truth").rglob("*.png"):
        truth = np.array(Image.open(path)) > 0
        shares.append(truth[:, :25].sum() / (1000 + truth[:, 25:].sum()))
    assert f"mean {np.mean(shares):.3f}" in out
    command(folder, folder / "masks", "--compare", folder / "truth", "--overwrite")
    assert "3 masks written" in capsys.readouterr().out


def test_the_next_step_can_be_taken(folder, capsys, monkeypatch):
    """Pictures that lie in no folder of a class cannot be measured as they are."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    (folder / "images").rename(folder / "all")
    for place, sorting in ((folder / "all", False), (folder / "all/dog", True)):
        command(place, folder / "out" / place.name)
        printed = capsys.readouterr().err
        assert ("move pictures and masks into folders of classes" in printed) is sorting
        assert f"bgdebias probe --model MODEL --data {place} --masks {folder / 'out' / place.name}" in printed


def test_flat_folders_and_one_picture(folder, capsys):
    assert command(folder / "images/dog", folder / "out", "--compare", folder / "truth/dog") == 0
    assert (folder / "out/c.png").exists()
    assert "with 1 given masks: mean 1.000" in capsys.readouterr().out


def test_unreadable_pictures(folder, capsys):
    (folder / "images/cat/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UnreadableImageError, match=r"cat/broken.jpg"):
        command(folder, folder / "masks")
    assert command(folder, folder / "masks", "--on-error", "skip") == 0
    assert "1 pictures skipped: unreadable image file" in capsys.readouterr().out
    assert len(list((folder / "masks").rglob("*.png"))) == 3


def test_bad_arguments(folder):
    with pytest.raises(FileNotFoundError, match=r"IN: expected a file or folder, found nothing at"):
        command(folder / "absent", folder / "masks")
    with pytest.raises(FileNotFoundError, match=r"compare: expected a file or folder, found nothing at"):
        command(folder, folder / "masks", "--compare", folder / "absent")
    with pytest.raises(ValueError, match=r"--compare: no given mask has the name of any of the 3 pictures"):
        command(folder, folder / "masks", "--compare", folder / "truth/cat")
    with pytest.raises(ValueError, match=r"OUT: expected another folder than IN"):
        command(folder / "images", folder / "images")
    with pytest.raises(ValueError, match=r"margin: expected a share in \(0, 0.5\), got 0.7"):
        command(folder, folder / "other", "--margin", "0.7")
    with pytest.raises(SystemExit):
        command(folder, folder / "masks", "--on-error", "ignore")


def test_pictures_of_one_name(folder):
    Image.open(folder / "images/cat/a.png").save(folder / "images/cat/a.jpg")
    with pytest.raises(ValueError, match=r"a.jpg and .*a.png would both have the mask .*rename one"):
        command(folder, folder / "masks")


def test_given_masks_of_another_size(folder):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "truth/cat/a.png")
    with pytest.raises(MaskSizeError, match=r"mask .*truth/cat/a.png: expected the size \(40, 50\)"):
        command(folder, folder / "masks", "--compare", folder / "truth")


def test_masks_below_the_pictures_are_no_pictures(folder, capsys):
    root = folder / "images"
    assert command(root, root / "masks") == 0
    first = sorted((root / "masks").rglob("*.png"))
    assert command(root, root / "masks") == 0
    assert sorted((root / "masks").rglob("*.png")) == first
    assert len(first) == 3
    assert "0 masks written" in capsys.readouterr().out


def test_annotations_beside_the_pictures_are_told(folder, capsys):
    (folder / "images/all.json").write_text('{"images": [], "annotations": []}')
    assert command(folder, folder / "out") == 0
    assert "note: there are annotations (COCO: all.json), which GrabCut does not use" in capsys.readouterr().err


def test_given_masks_are_compared_by_what_they_are(folder, capsys):
    """Void counts on neither side, a suffix is part of the names, labels are labels."""
    assert command(folder, folder / "out") == 0
    for path in (folder / "out").rglob("*.png"):
        labels = np.where(np.asarray(Image.open(path)) > 0, 3, 0)
        labels[:, :25] = 255  # void over a half: nothing there can be wrong
        given = folder / "given" / path.relative_to(folder / "out")
        given.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint8)).save(given.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(ValueError, match="no given mask has the name of any of the 3 pictures"):
        command(folder, folder / "out", "--compare", folder / "given")
    assert command(folder, folder / "out", "--compare", folder / "given", "--mask-suffix", "_mask") == 0
    assert "mean 1.000" in capsys.readouterr().out
