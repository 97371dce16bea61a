"""`bgdebias variants`: the folders it writes, that they repeat, and its answers to bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.cli.variants import NAMES
from torch_bgdebias.data import VARIANTS, MaskedImageFolder, make_variant


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of three classes: background of the class's colour, foreground white; one mask is empty."""
    colours = {"cat": (200, 0, 0), "dog": (0, 200, 0), "emu": (0, 0, 200)}
    for name, colour in colours.items():
        for i in range(3):
            pixels = np.zeros((16, 16, 3), np.uint8) + np.array([abs(c - 9 * i) for c in colour], np.uint8)
            mask = np.zeros((16, 16), np.uint8)
            if (name, i) != ("emu", 2):
                mask[5:10, 4 : 8 + i] = 255
            pixels[mask > 0] = 255
            for path, values in ((f"images/{name}/{i}.png", pixels), (f"masks/{name}/{i}.png", mask)):
                (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(tmp_path / "in" / path)
    return tmp_path


def command(*words):
    return cli.main(["variants", *map(str, words)])


def read(path):
    return np.array(Image.open(path)).astype(int)


def test_names_are_the_packages():
    assert ("original", *VARIANTS) == NAMES


def test_writes_every_variant(folder, capsys):
    out = folder / "out"
    assert command(folder / "in", out, "--size", 16) == 0
    printed = capsys.readouterr().out
    assert "only_fg: 8 pictures in " in printed
    assert "1 left out" in printed
    assert sorted(p.name for p in out.iterdir()) == sorted(VARIANTS)
    assert not (out / "only_fg/emu/2.png").exists()
    data = MaskedImageFolder(folder / "in", size=16)
    for name in ("only_fg", "only_bg_b", "only_bg_t", "no_fg"):
        for i, sample in enumerate(data.samples[:8]):
            image, label, mask = data[i]
            variant = make_variant(image[None], mask[None], torch.tensor([label]), name).image[0]
            written = read(out / name / sample.image.relative_to(data.root / "images"))
            np.testing.assert_array_equal(written, (variant * 255).round().permute(1, 2, 0).int().numpy())
    for name, partner in (("mixed_same", "cat"), ("mixed_next", "dog")):
        for i in range(3):
            pixels = read(out / name / f"cat/{i}.png")
            assert (pixels[6, 5] == 255).all()
            channel = {"cat": 0, "dog": 1}[partner]
            shade = 200 - pixels[0, 0, channel]
            assert shade % 9 == 0
            assert shade < 27
            if partner == "cat":
                assert shade != 9 * i  # never its own


def test_repeats_whichever_variants_are_named(folder):
    assert command(folder / "in", folder / "a", "--size", 16, "--names", "mixed_rand") == 0
    assert command(folder / "in", folder / "b", "--size", 16, "--names", "mixed_same,original,mixed_rand") == 0
    files = sorted(p.relative_to(folder / "a") for p in (folder / "a").rglob("*.png"))
    assert len(files) == 8
    assert all((folder / "a" / f).read_bytes() == (folder / "b" / f).read_bytes() for f in files)
    assert len(list((folder / "b/original").rglob("*.png"))) == 9
    for seed in range(1, 4):
        assert command(folder / "in", folder / f"s{seed}", "--size", 16, "--names", "mixed_rand", "--seed", seed) == 0
    backgrounds = {tuple(tuple(read(folder / s / f)[0, 0]) for f in files) for s in ("a", "s1", "s2", "s3")}
    assert len(backgrounds) > 1
    assert not list(folder.rglob("*.part"))


def test_bad_input(folder, capsys):
    out = folder / "out"
    assert command(folder / "in", out, "--names", "mixed") == 2
    assert "expected some of original, only_fg" in capsys.readouterr().err
    assert command(folder / "in", out, "--names", "") == 1
    assert "--names: expected some of" in capsys.readouterr().err
    assert command(folder / "nothing", out) == 1
    assert "IN: expected a file or folder, found nothing at" in capsys.readouterr().err
    assert command(folder / "in", out, "--names", "no_fg", "--size", 8) == 0
    assert command(folder / "in", out, "--names", "no_fg", "--size", 8) == 1
    assert "is there already; pass --overwrite" in capsys.readouterr().err
    assert command(folder / "in", out, "--names", "no_fg", "--size", 8, "--overwrite") == 0
    (folder / "file").write_text("")
    assert command(folder / "in", folder / "file") == 1
    assert "OUT: expected a folder, got the file" in capsys.readouterr().err
    Image.new("RGB", (16, 16)).save(folder / "in/images/cat/0.jpg")
    assert command(folder / "in", folder / "other") == 1
    assert "would both become cat/0.png: rename one" in capsys.readouterr().err
