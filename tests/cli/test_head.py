"""``bgdebias head`` from a folder to a state dict that loads again."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint
from torch_bgdebias.cli import main
from torch_bgdebias.cli.head import calibration_warnings
from torch_bgdebias.data import example_folder
from torch_bgdebias.heads import DebiasedHead, HeadFigures, LinearHead, ViewFigures
from torch_bgdebias.named_models import load_model
from torch_bgdebias.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return example_folder(tmp_path_factory.mktemp("head") / "data")


def arguments(data, out, *more):
    words = ["head", "--model", "timm:test_resnet", "--data", data, "--out", out, "--size", 32, "--copies", 1, *more]
    return [str(word) for word in words]


def test_a_state_dict_that_probe_can_load(data, tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    assert main(arguments(data, out, "--json")) == 0
    printed = capsys.readouterr()
    assert "the weights are random" in printed.err
    result = json.loads(printed.out)
    assert result["penalty"] in [score["penalty"] for score in result["scores"]]
    assert all(0 <= score["swapped"] <= 1 for score in result["scores"])
    assert {*result["before"]} == {*result["after"]} == {"original", "swapped"}
    assert result["temperature"] > 0
    best = max(result["scores"], key=lambda score: score["both"])
    enough = [score["penalty"] for score in result["scores"] if score["both"] >= best["both"] - best["error"]]
    assert result["penalty"] == max(enough)
    assert f"{100 * best['both']:.1f} - {100 * best['error']:.1f} =" in result["criterion"]
    assert (result["preprocessing"].get("crop"), "publishers_crop" in result["preprocessing"]) == (None, True)
    loaded = load_model("timm:test_resnet", num_classes=len(result["classes"]), checkpoint=out)
    layer = loaded.model.get_submodule(result["layer"])
    fitted_with = {**result["preprocessing"], "source": "the checkpoint fixed.pt"}
    assert loaded.preprocessing.to_dict() == fitted_with, "probe measures it as it was fitted"
    assert loaded.classes == tuple(result["classes"])
    assert layer.weight.shape[0] == len(result["classes"])
    assert torch.isfinite(layer.weight).all()


def test_the_penalties_are_those_asked_for_and_the_end_of_their_range_is_told(data, tmp_path, capsys):
    assert main(arguments(data, tmp_path / "one.pt", "--json", "--penalties", "1e3,1e5")) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert [score["penalty"] for score in result["scores"]] == [1e5, 1e3]
    assert result["best_at_end"] in ("weakest", "strongest", None)
    assert ("--penalties" in printed.err) == (result["best_at_end"] is not None and "will not help" not in printed.err)
    for wrong in ("0.1,0", "many", "1,nan", "-1"):
        assert main(arguments(data, tmp_path / "two.pt", f"--penalties={wrong}")) == 2
        assert f"expected numbers above 0, separated by commas, got {wrong}" in capsys.readouterr().err


def test_an_existing_file_is_left_alone(data, tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    out.write_text("mine")
    assert main(arguments(data, out)) == 1
    assert "exists already; pass --overwrite or another name" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(arguments(data, out, "--overwrite")) == 0
    text = capsys.readouterr().out
    assert "<- chosen" in text
    assert "Chosen: the strongest penalty within one standard error of the best, at least" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("before ", "after "))]
    assert [len(row) for row in rows] == [11, 11]


def test_a_wrong_model_is_named_before_a_file_that_is_there(data, tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    out.write_text("mine")
    assert main([word.replace("test_resnet", "test_rasnet") for word in arguments(data, out)]) == 1
    err = capsys.readouterr().err
    assert "test_rasnet" in err
    assert "overwrite" not in err


def test_a_place_that_cannot_be_written_is_told_before_anything_is_loaded(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch_bgdebias.named_models.load_model", pytest.fail)
    assert main(arguments(data, tmp_path / "nowhere" / "fixed.pt")) == 1
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(arguments(data, tmp_path)) == 1
    assert f"--out: expected a file to write, got {tmp_path}: it is a folder" in capsys.readouterr().err

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # root may write anywhere
    assert main(arguments(data, tmp_path / "fixed.pt")) == 1
    assert capsys.readouterr().err == f"bgdebias head: error: --out: cannot write into {tmp_path}: Permission denied\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_told_before_anything_is_computed(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch_bgdebias.heads.fit_debiased_head", pytest.fail)
    (tmp_path / "fixed.pt").write_text("mine")
    assert main(arguments(data, tmp_path / "fixed.pt")) == 1
    assert "fixed.pt exists already; pass --overwrite or another name" in capsys.readouterr().err


def test_a_checkpoint_s_normalisation_and_order_of_classes_stay(data, tmp_path, capsys):
    net = load_model("timm:test_resnet", num_classes=3).model
    wanted = Preprocessing(mean=(0.3, 0.4, 0.5), std=(0.2, 0.2, 0.2), size=(32, 32))
    names = sorted(path.name for path in (data / "images").iterdir())
    for classes, rc in ((names[::-1], 0), (["a", "b", "c"], 1)):
        before, after = tmp_path / "before.pt", tmp_path / "after.pt"
        torch.save({"state_dict": net.state_dict(), NOTES: notes_for_checkpoint(wanted, classes)}, before)
        assert main(arguments(data, after, "--checkpoint", before, "--overwrite", "--json")) == rc
        printed = capsys.readouterr()
        if rc:
            assert f"expected the classes that {before} was trained on (a, b, c)" in printed.err
            continue
        assert json.loads(printed.out)["classes"] == classes
        loaded = load_model("timm:test_resnet", checkpoint=after)
        assert loaded.classes == tuple(classes)
        assert list(loaded.preprocessing.mean) == [0.3, 0.4, 0.5]


def test_advice_on_masks_can_be_followed(data, tmp_path, capsys):
    turned = shutil.copytree(data, tmp_path / "turned")
    for file in (turned / "masks").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file).convert("L"))).save(file)
    out = tmp_path / "fixed.pt"
    assert main(arguments(turned, out)) == 1
    assert "inverted? Say foreground=[0]" in capsys.readouterr().err
    torch.manual_seed(0)
    assert main(arguments(turned, out, "--foreground", "0", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    torch.manual_seed(0)
    assert main(arguments(data, tmp_path / "other.pt", "--json")) == 0
    assert printed["scores"] == json.loads(capsys.readouterr().out)["scores"], "the very same objects"


def test_worse_probabilities_are_spoken_of():
    good, low = ViewFigures(0.9, 0.88, 0.03), ViewFigures(0.8, 0.6, 0.2)
    head = LinearHead(torch.zeros(2, 3), torch.zeros(2))
    fitted = DebiasedHead(head, "fc", 1.0, (), 10, 1.0, HeadFigures(good, low), HeadFigures(low, good))
    (text,) = calibration_warnings(fitted)
    assert text.startswith(
        "on pictures as they are the calibration error goes from 0.030 to 0.200: the answers are less"
    )
    assert "sure (60%) than right (80%)" in text
    assert calibration_warnings(dataclasses.replace(fitted, after=HeadFigures(good, good))) == []
    assert calibration_warnings(dataclasses.replace(fitted, before=None)) == []
