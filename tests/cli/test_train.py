"""`bgdebias train`: LightningCLI with this package's callbacks by class path."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.cli.train import EXAMPLE

pytest.importorskip("jsonargparse")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two masked folders of two classes, the example's settings over them, and we are there."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            for i in range(4):
                pixels = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[..., label] += 150
                mask = np.zeros((16, 16), np.uint8)
                mask[4:12, 5:11] = 255
                for path, values in ((f"images/{name}/{i}.png", pixels), (f"masks/{name}/{i}.png", mask)):
                    (tmp_path / "data" / part / path).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(values).save(tmp_path / "data" / part / path)
                (tmp_path / "scenes" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "scenes" / name / f"{i}.png")
    settings = yaml.safe_load(EXAMPLE)
    settings["model"]["init_args"] = {"network": "timm:test_resnet", "num_classes": 2}
    settings["data"]["init_args"] |= {"size": 32, "batch_size": 4}
    settings["trainer"] |= {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return settings


def test_trains_with_swap_probe_and_checkpoint_on_the_gap(place, capsys):
    assert cli.main(["train", "--config", "train.yaml", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "torch_bgdebias.train/1"
    assert {"bias/bg_gap", "val_acc", "background_swap/fraction"} <= set(printed["metrics"])
    assert math.isfinite(printed["metrics"]["bias/bg_gap"])
    assert printed["best_model"].endswith(".ckpt")
    # what it wrote is what bgdebias probe reads
    words = ["--model", "timm:test_resnet", "--checkpoint", printed["best_model"], "--data", "data/val", "--size", "32"]
    assert cli.main(["probe", *words, "--attributions", "", "--device", "cpu", "--json"]) == 0
    assert cli.main(["train", "validate", "--config", "train.yaml", "--ckpt_path", printed["best_model"]]) == 0
    assert "bias/bg_gap" in capsys.readouterr().out


def test_other_callbacks_and_a_bank_by_class_path(place, tmp_path, capsys):
    swap = {
        "class_path": "torch_bgdebias.BackgroundSwap",
        "init_args": {
            "source": {
                "class_path": "torch_bgdebias.BackgroundBank.from_folder",
                "init_args": {"root": "scenes", "size": [32, 32]},
            }
        },
    }
    place["trainer"]["callbacks"] = [
        {"class_path": "torch_bgdebias.callbacks.CLADCallback", "init_args": {"swap": swap, "num_classes": 2}},
        {"class_path": "torch_bgdebias.callbacks.ISNetCallback", "init_args": {"attribution": "gradient"}},
        {
            "class_path": "torch_bgdebias.callbacks.BackgroundBiasProbe",
            "init_args": {"spec": {"image": 0, "label": 1, "mask": 2}, "metrics": ["bg_gap"], "figures": False},
        },
    ]
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(place))
    assert cli.main(["train", "fit", "--config", "train.yaml", "--json"]) == 0
    assert "bias/bg_gap" in json.loads(capsys.readouterr().out)["metrics"]


def test_help_and_example(capsys):
    assert cli.main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    assert "examples:" in told
    assert "bgdebias train --config train.yaml" in told
    assert cli.main(["train", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    assert cli.main(["train"]) == 2
    assert "usage: bgdebias train" in capsys.readouterr().out


def test_errors(place, tmp_path, capsys):
    for words, code, told in [
        (["--config", "absent.yaml"], 2, "absent.yaml"),
        (["--config", "train.yaml", "--trainer.max_epoxs", "3"], 2, "max_epoxs"),
        (["--config", "train.yaml", "--model", "NoSuchModel"], 2, "NoSuchModel"),
        (["--config", "train.yaml", "--model.init_args.network", "timm:resnet_18x"], 1, "timm has no 'resnet_18x'"),
        (["--config", "train.yaml", "--data.init_args.val", "nowhere"], 1, "nowhere"),
        (["--config", "train.yaml", "--ckpt_path", "none.ckpt"], 1, "none.ckpt"),
        (["fitt"], 1, "expected one of fit, validate, test, predict or an option, got 'fitt'"),
    ]:
        assert cli.main(["train", *words]) == code, words
        assert told in capsys.readouterr().err, words
    (tmp_path / "data/val/images/dog").rename(tmp_path / "data/val/images/emu")
    (tmp_path / "data/val/masks/dog").rename(tmp_path / "data/val/masks/emu")
    assert cli.main(["train", "--config", "train.yaml"]) == 1
    assert "val: expected the classes of train; not in both: dog, emu" in capsys.readouterr().err
