"""Generated backgrounds: resumable, none twice, recorded; pipelines of diffusers with random weights built here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipelines import stable_diffusion, wuerstchen, wuerstchen_as_published

from torch_bgdebias.backgrounds import (
    BACKGROUND_PROMPTS,
    TextToImage,
    generate_backgrounds,
    uniform_noise,
    write_backgrounds,
)
from torch_bgdebias.data import paint_scenes

STEPS = {"num_inference_steps": 2}
WUERSTCHEN_STEPS = {**STEPS, "prior_num_inference_steps": 2}


def records(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "backgrounds.jsonl").read_text().splitlines()]


def pixels(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): np.asarray(Image.open(p)).tobytes() for p in sorted(root.rglob("*.png"))}


class Flaky:
    """Noise that counts its pictures and breaks off after some."""

    def __init__(self, after: int = 10**9) -> None:
        self.after, self.made = after, 0

    def __call__(self, prompts, seeds, size):
        self.made += len(seeds)
        if self.made > self.after:
            raise KeyboardInterrupt
        return uniform_noise(prompts, seeds, size)


def test_noise_is_uniform_and_a_picture_depends_on_its_seed_alone(tmp_path):
    bank = generate_backgrounds(tmp_path, 6, "noise", size=(20, 30))
    assert bank.images.shape == (6, 3, 20, 30)
    assert bank.classes == ("noise",)
    counts = torch.bincount(bank.images.flatten().long(), minlength=256)
    expected = bank.images.numel() / 256
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert 170 < chi < 350  # 255 degrees of freedom
    both, one = uniform_noise(["", ""], [3, 4], (5, 6)), uniform_noise([""], [4], (5, 6))
    assert torch.equal(both[1:], one)


def test_resuming_makes_only_what_is_missing(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_backgrounds(whole, 5, Flaky(), ["a", "b"], size=8, batch_size=5)
    with pytest.raises(KeyboardInterrupt):
        write_backgrounds(broken, 5, Flaky(6), ["a", "b"], size=8, batch_size=2)
    (broken / "b").mkdir()
    (broken / "b/000004.png").write_bytes(b"")  # written, but the record is missing
    (broken / "backgrounds.jsonl").open("a").write('{"file": "a/0000')  # broken off
    source = Flaky()
    before = len(records_until_broken(broken))
    done = write_backgrounds(broken, 5, source, ["a", "b"], size=8, batch_size=3)
    assert source.made == 10 - before
    assert (done.made, done.kept) == (10 - before, before)
    assert pixels(broken) == pixels(whole)
    assert len(set(pixels(whole).values())) == 10
    more = write_backgrounds(whole, 7, Flaky(), ["a", "b"], size=8)
    assert (more.made, more.kept) == (4, 10)
    assert not list(whole.rglob("*.part"))


def records_until_broken(root: Path) -> list[str]:
    return [line for line in (root / "backgrounds.jsonl").read_text().splitlines() if line.endswith("}")]


def test_the_record_is_enough_to_make_the_picture_again(tmp_path):
    write_backgrounds(tmp_path, 2, paint_scenes, ["sea", "desert"], size=(24, 32), seed=3)
    rows = records(tmp_path)
    assert [row["file"] for row in rows] == [
        "sea/000000.png",
        "sea/000001.png",
        "desert/000000.png",
        "desert/000001.png",
    ]
    for row in rows:
        again = paint_scenes([row["prompt"]], [row["seed"]], row["size"])[0]
        assert np.array_equal(np.asarray(Image.open(tmp_path / row["file"])), again.permute(1, 2, 0).numpy())
        assert row["source"] == "paint_scenes"
        assert row["versions"]["torch"] == torch.__version__
        assert len(row["sha256"]) == 64


def test_no_picture_twice(tmp_path):
    def few(prompts, seeds, size):  # three different pictures, and a black one, as a safety checker gives
        values = torch.tensor([seed % 4 for seed in seeds])[:, None, None, None] / 4
        return torch.linspace(0, 1, size[1]).expand(len(seeds), 3, *size) * values

    done = write_backgrounds(tmp_path, 2, few, ["x"], size=8, batch_size=1)
    assert done.made == 2
    assert len(set(pixels(tmp_path).values())) == 2
    with pytest.raises(ValueError, match=r"few gave a picture that is there already, or a single colour, for x/0+\d"):
        write_backgrounds(tmp_path, 4, few, ["x"], size=8, batch_size=2)
    assert len(pixels(tmp_path)) <= 3


def test_pictures_that_are_gone_come_back_and_dropped_ones_do_not(tmp_path):
    write_backgrounds(tmp_path, 4, "noise", size=8)
    before = pixels(tmp_path)
    (tmp_path / "noise/000001.png").unlink()
    (tmp_path / "noise/000002.png").unlink()
    with (tmp_path / "backgrounds.jsonl").open("a") as file:
        file.write(json.dumps({"file": "noise/000002.png", "dropped": ["ostrich"]}) + "\n")
    done = write_backgrounds(tmp_path, 4, "noise", size=8)
    assert (done.made, done.kept) == (2, 2)
    after = pixels(tmp_path)
    assert sorted(after) == [f"noise/00000{i}.png" for i in (0, 1, 3, 4)]
    assert after["noise/000001.png"] == before["noise/000001.png"]
    assert after["noise/000004.png"] not in before.values()


def test_other_settings_in_the_same_folder_are_an_error(tmp_path):
    write_backgrounds(tmp_path, 1, "noise", size=8)
    with pytest.raises(ValueError, match=r"noise/000000.png was made with other settings \(seed \d+, now \d+\): use"):
        write_backgrounds(tmp_path, 1, "noise", size=8, seed=1)
    with pytest.raises(ValueError, match=r"asked_size \[8, 8\], now \[9, 9\]"):
        write_backgrounds(tmp_path, 1, "noise", size=9)
    (tmp_path / "backgrounds.jsonl").write_text("[]\n{}\n")
    with pytest.raises(ValueError, match="line 1 is no record of a picture"):
        write_backgrounds(tmp_path, 1, "noise", size=8)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="n: expected a whole number of at least 1, got 0"):
        write_backgrounds(tmp_path, 0, "noise")
    with pytest.raises(ValueError, match="prompts: expected the categories that the function draws, got none"):
        write_backgrounds(tmp_path, 1, paint_scenes)
    with pytest.raises(ValueError, match=r"expected categories that can be folder names, got \['a/b'\]"):
        write_backgrounds(tmp_path, 1, "noise", ["a/b"])
    with pytest.raises(ValueError, match="negative_prompt: expected none, the source is no text-to-image"):
        write_backgrounds(tmp_path, 1, "noise", negative_prompt="people")
    with pytest.raises(ValueError, match=r"expected pictures \(1, 3, H, W\), got float32 tensor of shape \(1, 8, 8\)"):
        write_backgrounds(tmp_path, 1, lambda *_: torch.rand(1, 8, 8), ["x"])
    with pytest.raises(ValueError, match=r"expected uint8 or values in \[0, 1\], got \[2, 2\]"):
        write_backgrounds(tmp_path, 1, lambda *_: torch.full((1, 3, 8, 8), 2.0), ["x"])
    with pytest.raises(TypeError, match="source: expected a name, a folder, a pipeline or a function, got int 3"):
        write_backgrounds(tmp_path, 1, 3)


def test_the_prompts_of_the_paper():
    assert len(BACKGROUND_PROMPTS) == 8
    assert all("devoid of objects, creatures, vehicles" in prompt for prompt in BACKGROUND_PROMPTS.values())


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusers)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra diffusers)")
    return stable_diffusion(tmp_path_factory.mktemp("sd"))


def test_a_pipeline_from_a_folder(diffusion, tmp_path):
    settings = {"size": (16, 24), "options": STEPS, "device": "cpu"}
    bank = generate_backgrounds(tmp_path / "a", 3, diffusion, batch_size=3, negative_prompt="people", **settings)
    assert bank.images.shape == (24, 3, 16, 24)
    assert set(bank.classes) == set(BACKGROUND_PROMPTS)
    row = records(tmp_path / "a")[0]
    assert row["prompt"] == BACKGROUND_PROMPTS["cloudscape"]
    assert row["source"].startswith("StableDiffusionPipeline:")
    assert row["options"] == {**STEPS, "negative_prompt": "people"}
    assert {"torch", "diffusers", "transformers", "torch_bgdebias"} == set(row["versions"])
    some = {name: BACKGROUND_PROMPTS[name] for name in ("ocean", "space")}
    write_backgrounds(tmp_path / "b", 2, diffusion, some, batch_size=1, negative_prompt="people", **settings)
    a, b = ({row["file"]: row for row in records(tmp_path / name)} for name in "ab")
    for name in b:  # neither the batch size nor the other categories matter
        assert a[name]["seed"] == b[name]["seed"]
        images = [np.asarray(Image.open(tmp_path / part / name)).astype(int) for part in "ab"]
        assert np.abs(images[0] - images[1]).max() <= 1


def test_prompts_and_options_reach_the_pipeline(diffusion):
    source = TextToImage(str(diffusion), device="cpu", options=STEPS)
    sea, sky = source(["the sea", "a sky"], [1, 1], (16, 16))
    assert not torch.equal(sea, sky)
    assert torch.equal(source(["the sea"], [1], (16, 16))[0], sea)
    longer = TextToImage(source.pipeline, options={"num_inference_steps": 4})
    assert not torch.equal(longer(["the sea"], [1], (16, 16))[0], sea)
    with pytest.raises(ValueError, match=r"StableDiffusionPipeline takes no steps; it takes prompt, height"):
        TextToImage(source.pipeline, options={"steps": 3})


def test_a_pipeline_that_cannot_be_loaded(diffusion, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"source: cannot load '.*empty', expected the name of a text-to-image pipeline"):
        TextToImage(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"text-to-image generation needs diffusers.*torch_bgdebias\[diffusers\]"):
        TextToImage(diffusion)


@pytest.mark.parametrize("build", [wuerstchen, wuerstchen_as_published])
def test_wuerstchen(diffusion, build, tmp_path):
    """The default's own class, saved whole and in the two halves in which it is published."""
    folder = build(tmp_path / "weights")
    prompts = {"ocean": BACKGROUND_PROMPTS["ocean"]}
    settings = {"size": 128, "options": WUERSTCHEN_STEPS, "device": "cpu"}
    bank = generate_backgrounds(tmp_path / "out", 2, folder, prompts, bank_size=32, **settings)
    assert bank.images.shape == (2, 3, 32, 32)
    (row, _) = records(tmp_path / "out")
    assert row["source"].startswith("WuerstchenCombinedPipeline:")
    again = TextToImage(folder, device="cpu", options=WUERSTCHEN_STEPS)
    repeated = again([row["prompt"]], [row["seed"]], (128, 128))[0].permute(1, 2, 0)
    image = np.asarray(Image.open(tmp_path / "out" / row["file"]))
    assert np.abs(image.astype(int) - repeated.numpy().astype(int)).max() <= 1
    with pytest.raises(ValueError, match=r"failed at size \(128, 192\), maybe not one it can make"):
        again(["x"], [0], (128, 192))
