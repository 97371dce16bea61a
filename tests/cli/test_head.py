"""``bgdebias head`` from a folder to a state dict that loads again."""

from __future__ import annotations

import json

import pytest
import torch

from torch_bgdebias.cli import main
from torch_bgdebias.data import example_folder
from torch_bgdebias.named_models import load_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return example_folder(tmp_path_factory.mktemp("head") / "data")


def arguments(data, out, *more):
    words = ["head", "--model", "timm:test_resnet", "--data", data, "--out", out, "--size", 32, "--copies", 1, *more]
    return [str(word) for word in words]


def test_a_state_dict_that_probe_can_load(data, tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    assert main(arguments(data, out, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["penalty"] in [score["penalty"] for score in result["scores"]]
    assert all(0 <= score["swapped"] <= 1 for score in result["scores"])
    model = load_model("timm:test_resnet", num_classes=len(result["classes"]), checkpoint=out).model
    layer = model.get_submodule(result["layer"])
    assert layer.weight.shape[0] == len(result["classes"])
    assert torch.isfinite(layer.weight).all()


def test_an_existing_file_is_left_alone(data, tmp_path, capsys):
    out = tmp_path / "fixed.pt"
    out.write_text("mine")
    assert main(arguments(data, out)) == 1
    assert "exists; pass --overwrite or another name" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(arguments(data, out, "--overwrite")) == 0
    assert "<- chosen" in capsys.readouterr().out


def test_no_folder_to_write_into(data, tmp_path, capsys):
    assert main(arguments(data, tmp_path / "nowhere" / "fixed.pt")) == 1
    assert "there is no folder" in capsys.readouterr().err
