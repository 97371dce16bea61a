"""`bgdebias backgrounds`: pictures it makes, pictures it takes out, and its answers to bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.cli import main
from torch_bgdebias.data import SCENE_CATEGORIES


class Levels(nn.Module):
    """Three outputs: how dark, middling and bright a picture is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        level = image.mean((1, 2, 3))
        return torch.stack([-level, -(level - 0.5).abs() - 0.1, level - 1], dim=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two dark, two middling and two bright pictures in two categories, and names of the outputs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, level in enumerate((0, 10, 125, 130, 250, 255)):
        path = tmp_path / "scenes" / ("even" if number % 2 == 0 else "odd") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)
    (tmp_path / "names.txt").write_text("dark\nmiddling\nbright\n")
    return tmp_path


def filter_words(folder, *more):
    model = f"{Levels.__module__}:Levels"
    return ["backgrounds", "filter", str(folder / "scenes"), "--model", model, "--top-k", "1", "--size", "8",
            "--class-names", str(folder / "names.txt"), "--device", "cpu", *map(str, more)]  # fmt: skip


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The model is found under a name that the command can import."""
    import sys

    monkeypatch.setitem(sys.modules, Levels.__module__, sys.modules[__name__])


def left(root):
    return sorted(path.stem for path in root.rglob("*.png"))


def test_filter_reports_and_touches_nothing(folder, capsys):
    assert main(filter_words(folder, "--forbidden", "bright,0")) == 0
    out = capsys.readouterr().out
    assert "4 of 6 pictures would be dropped (nothing touched: --move or --copy)" in out
    assert "bright                           2" in out
    assert "dark                             2" in out
    assert left(folder / "scenes") == list("012345")
    assert list((folder / "cache").rglob("*.pt"))


def test_filter_moves_and_copies(folder, capsys):
    assert main(filter_words(folder, "--forbidden", "bright", "--copy", folder / "clean", "--json", "--no-cache")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "torch_bgdebias.backgrounds/1"
    assert (printed["before"], printed["dropped"], printed["by_class"]) == (6, 2, {"bright": 2})
    assert printed["files"] == {"even/4.png": ["bright"], "odd/5.png": ["bright"]}
    assert left(folder / "clean") == list("0123")
    assert not (folder / "cache").exists()
    assert main(filter_words(folder, "--forbidden", "1-2", "--move", folder / "rejected", "--cache", folder / "c")) == 0
    assert "4 of 6 pictures moved" in capsys.readouterr().out
    assert left(folder / "scenes") == list("01")
    assert left(folder / "rejected") == list("2345")
    assert len(BackgroundBank.from_folder(folder / "scenes", 8)) == 2


def test_generated_pictures_that_were_dropped_are_not_made_again(folder, capsys):
    make = ["backgrounds", "generate", str(folder / "made"), "--source", "noise", "-n", "3", "--size", "8"]
    assert main([*make, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["made"], printed["kept"], printed["categories"], printed["size"]) == (3, 0, ["noise"], [8, 8])
    words = filter_words(folder, "--forbidden", "middling", "--move", folder / "rejected")
    words[2] = str(folder / "made")
    assert main(words) == 0
    assert left(folder / "rejected") == ["000000", "000001", "000002"]
    assert main(make) == 0
    assert left(folder / "made") == ["000003", "000004", "000005"]
    assert "3 pictures of 1 categories made" in capsys.readouterr().out


def test_generate_scenes(tmp_path, capsys):
    words = ["backgrounds", "generate", str(tmp_path), "--source", "scenes", "-n", "2", "--size", "24"]
    assert main([*words, "--categories", "sea,sky"]) == 0
    assert main(words) == 0
    assert "16 pictures of 10 categories made" in capsys.readouterr().out
    bank = BackgroundBank.from_folder(tmp_path, 24)
    assert set(bank.classes) == set(SCENE_CATEGORIES)
    assert len(bank) == 20


def test_generate_with_a_pipeline(tmp_path, capsys):
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusers)")
    from tiny_pipelines import stable_diffusion

    pipeline = stable_diffusion(tmp_path / "weights")
    words = ["backgrounds", "generate", str(tmp_path / "out"), "--source", str(pipeline), "-n", "2", "--size", "16"]
    words += ["--option", "num_inference_steps=2", "--categories", "ocean", "--prompt", "snow=a field of snow"]
    assert main([*words, "--device", "cpu"]) == 0
    assert "4 pictures of 2 categories made" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out/backgrounds.jsonl").read_text().splitlines()]
    assert {row["prompt"] for row in rows if row["category"] == "snow"} == {"a field of snow"}
    assert rows[0]["options"] == {"num_inference_steps": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--forbidden", "brigt"], "no class is called 'brigt'; near names: bright"),
        (["--forbidden", "7"], "expected a class in [0, 2], got 7"),
        ([], "--forbidden: expected at least one class, here or in --forbidden-file, got none"),
        (["--forbidden", "2-1"], "--forbidden: expected an ascending range, got 2-1"),
        (["--forbidden", "0", "--top-k", "4"], "top_k: expected in [1, 3]"),
        (
            ["--forbidden", "0", "--forbidden-file", "absent.txt"],
            "--forbidden-file: expected a file or folder, found",
        ),
        (["--forbidden", "0-2", "--copy", "OUT"], "--copy: no background is left:"),
        (["--forbidden", "0", "--move", "IN"], "--move: expected a folder outside of IN"),
        (["--forbidden", "0", "--model", "timm:resnet18"], "--model: expected --pretrained or --checkpoint"),
        (["--forbidden", "0", "--device", "nowhere"], "--device: nowhere cannot be used"),
    ],
)
def test_bad_input_of_filter_is_one_line(folder, capsys, words, message):
    places = {"IN": folder / "scenes" / "rejected", "OUT": folder / "clean"}
    assert main(filter_words(folder, *(places.get(word, word) for word in words))) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert left(folder / "scenes") == list("012345")


def test_bad_input_of_generate(tmp_path, capsys):
    make = ["backgrounds", "generate", str(tmp_path / "out")]
    for words, message in (
        (["--source", "noise", "--categories", "sea"], "--categories: expected some of noise, got sea"),
        (["--source", "scenes", "--prompt", "a=b"], "--prompt: expected none with --source scenes"),
        (["--source", str(tmp_path)], "source: cannot load"),
        (["--source", "scenes", "--size", "4"], "size: expected at least 8 x 8"),
    ):
        if "load" in message:
            pytest.importorskip("diffusers")
        assert main([*make, *words]) == 1
        assert message in capsys.readouterr().err
    assert main(["backgrounds"]) == 2
    assert main([*make, "--option", "steps"]) == 2
    assert "expected NAME=VALUE, got 'steps'" in capsys.readouterr().err


def test_unreadable_pictures_and_empty_folders(folder, capsys):
    (folder / "scenes/odd/broken.jpg").write_bytes(b"no picture")
    assert main(filter_words(folder, "--forbidden", "dark")) == 1
    assert "broken.jpg: cannot identify image file" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="skipped 1 of 7 images"):
        assert main(filter_words(folder, "--forbidden", "dark", "--on-error", "skip", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["unreadable"] == 1
    words = filter_words(folder, "--forbidden", "dark")
    words[2] = str(folder / "absent")
    assert main(words) == 1
    assert "IN: expected a file or folder, found nothing at" in capsys.readouterr().err
