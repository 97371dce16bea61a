"""`bgdebias probe` on ImageNet-9 and PASCAL VOC, and with adversarial backgrounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from probe_command import command

from torch_bgdebias.probe import BackgroundBiasReport


def test_imagenet9_maps_a_thousand_classes(place, capsys):
    """Class i where channel i is brightest; of ImageNet's classes 0 to 6 are fish."""
    rng = np.random.default_rng(0)
    for name, label in (("00_dog", 0), ("08_fish", 1)):
        for i in range(2):
            pixels = rng.integers(0, 9, (12, 12, 3), dtype=np.uint8)
            pixels[..., label] = 220
            mask = np.zeros((12, 12), bool)
            mask[4:8, 4:8] = True
            for folder in ("original", "fg_mask"):
                (place / f"in9/{folder}/val/{name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"in9/original/val/{name}/{i}.JPEG")
            np.save(place / f"in9/fg_mask/val/{name}/{i}.npy", mask)
    words = ("--data", "in9", "--layout", "imagenet9", "--model", "trial_nets:Wide", "--attributions", "", "--json")
    assert command(*words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["accuracy"]["original"]["value"] == 0.5  # fish are fish, dogs are fish too
    assert "mixed_next" not in printed["accuracy"]
    assert "bird" in printed["notes"]["classes without pictures"]
    report = BackgroundBiasReport.from_json(printed["files"]["json"])
    assert report.class_names[-1] == "none of them"
    assert len(report.class_names) == 10


@pytest.fixture
def release(place):
    """Two dogs and a fish as published: the fish's backgrounds are channel 1, the dogs' channel 0."""
    rng = np.random.default_rng(0)
    foregrounds = [("00_dog", "n02085620_1"), ("00_dog", "n02085620_2"), ("08_fish", "n01440764_1")]

    def write(variant, group, name, channel):
        pixels = rng.integers(0, 9, (12, 12, 3), dtype=np.uint8)
        pixels[..., channel] = 220
        (place / f"in9/{variant}/val/{group}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"in9/{variant}/val/{group}/{name}.JPEG", quality=95)

    for group, name in foregrounds:
        own = 0 if group == "00_dog" else 1
        write("original", group, name, own)
        write("only_bg_t", group, name, own)
        write("mixed_same", group, f"fg_{name}_bg_n0_1", own)
        # the challenge's draw, which a new one would not repeat: everything on the fish's background
        write("mixed_rand", group, f"fg_{name}_bg_n01440764_1", 1)
        (place / f"in9/fg_mask/val/{group}").mkdir(parents=True, exist_ok=True)
        mask = np.zeros((12, 12), bool)
        mask[4:8, 4:8] = True
        np.save(place / f"in9/fg_mask/val/{group}/{name}.npy", mask)
    return place / "in9"


def test_imagenet9_as_published_gives_the_challenges_own_figures(release, capsys):
    words = ("--data", "in9", "--layout", "imagenet9", "--model", "trial_nets:Nine", "--json")
    assert command(*words, "--attributions", "grad_cam", "--adversarial", 10) == 0
    printed = json.loads(capsys.readouterr().out)
    accuracies = {name: figure["value"] for name, figure in printed["accuracy"].items()}
    assert accuracies == pytest.approx({"original": 1, "only_bg_t": 1, "mixed_same": 1, "mixed_rand": 1 / 3})
    assert printed["bg_gap"]["value"] == pytest.approx(2 / 3)
    assert printed["notes"]["variants"] == "as published: only_bg_t, mixed_same, mixed_rand"
    assert printed["notes"]["adversarial backgrounds"] == "3 (10 asked for), of the release's only_bg_t"
    assert printed["scores"]["adversarial_accuracy"]["mean"]["value"] == 0
    report = BackgroundBiasReport.from_json(printed["files"]["json"])
    assert report.images.background_label["mixed_rand"].tolist() == [8, 8, 8]
    assert report.settings["variants_are"] == "as given"
    assert "backgrounds" not in report.counts
    assert command(*words, "--attributions", "", "--remake") == 0
    assert "mixed_next" in json.loads(capsys.readouterr().out)["accuracy"]


def test_imagenet9_releases_that_lack_something(release, capsys):
    words = ("--data", "in9", "--layout", "imagenet9", "--model", "trial_nets:Nine", "--json", "--out", "out")
    next((release / "mixed_rand/val/00_dog").iterdir()).unlink()
    (release / "mixed_same/val/00_dog/fg_stray_bg_n0_1.JPEG").write_bytes(
        next((release / "original/val/00_dog").iterdir()).read_bytes()
    )
    assert command(*words, "--variants", "mixed_same,mixed_rand") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["notes"]["pictures without a variant"] == "1 mixed_rand"
    assert "stray" in printed["notes"]["left out"]
    assert printed["accuracy"]["mixed_rand"]["n"] == 2
    assert printed["accuracy"]["mixed_rand"]["value"] == 0.5
    assert command(*words, "--variants", "mixed_next") == 0  # not there at all: made anew
    assert command(*words, "--variants", "mixed_same,mixed_next") == 1
    assert "has no mixed_next; leave it out, or make all with --remake" in capsys.readouterr().err
    for path in release.glob("fg_mask/val/*/*.npy"):
        path.unlink()
    for path in (*release.glob("fg_mask/val/*"), release / "fg_mask/val"):
        path.rmdir()
    assert command(*words) == 1
    assert "--attributions: in9 has no fg_mask/val" in capsys.readouterr().err
    assert command(*words, "--attributions", "") == 0  # the accuracies need no masks


def test_voc(place, capsys):
    root = place / "voc/VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, value in (("a", 1), ("b", 3), ("c", 0)):  # aeroplane, bird, nothing
        pixels = np.full((12, 12, 3), 20, np.uint8)
        pixels[..., value // 2] = 200
        Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
        regions = np.zeros((12, 12), np.uint8)
        regions[4:9, 4:9] = value
        picture = Image.fromarray(regions, mode="P")
        picture.putpalette(list(range(256)) * 3)
        picture.save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\nc\n")
    words = (
        "--layout",
        "voc",
        "--model",
        "trial_nets:Twenty",
        "--attributions",
        "",
        "--variants",
        "mixed_rand",
        "--json",
    )
    assert command(*words, "--data", "voc") == 0
    printed = json.loads(capsys.readouterr().out)
    # one of two: P(2) + P(1) / 2 = p, so the limits are 0.025 and 0.975
    mid_p = {"low": pytest.approx(0.025), "high": pytest.approx(0.975)}
    assert printed["accuracy"]["original"] == {"value": 0.5, **mid_p, "n": 2}
    assert printed["notes"]["pictures left out"] == 1
    for folder, said in (
        ("nothing", "expected a file or folder, found nothing at nothing"),
        ("empty", "no PASCAL VOC"),
    ):
        Path("empty").mkdir(exist_ok=True)
        assert command(*words, "--data", folder) == 1
        assert f"--data: {said}" in capsys.readouterr().err
