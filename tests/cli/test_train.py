"""`bgdebias train`: LightningCLI with this package's callbacks by class path."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.cli.train import EXAMPLE, condensed
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from torch_bgdebias.probe import BackgroundBiasReport

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


def test_results_of_another_training_are_kept(place, tmp_path, capsys):
    """The rule of all commands: a folder that holds results is refused, but for --overwrite and for going on."""
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "name": "mine", "version": 1}}
    settings = {**place, "trainer": {**place["trainer"], "logger": logger, "callbacks": []}}
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump(settings))
    words = ["train", "--config", "fixed.yaml"]
    assert cli.main(words) == 0
    capsys.readouterr()
    (checkpoint,) = (tmp_path / "logs" / "mine").rglob("*.ckpt")
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert "--trainer.logger: logs/mine/version_1 holds the results of another training already" in err
    assert "--overwrite" in err
    assert checkpoint.exists()
    assert cli.main([*words, "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint)]) == 0
    assert cli.main([*words, "--overwrite"]) == 0


def test_last_is_the_last_epoch_and_the_best_is_kept_beside_it(place, capsys):
    assert cli.main(["train", "--config", "train.yaml", "--trainer.max_epochs", "3", "--json"]) == 0
    best = Path(json.loads(capsys.readouterr().out)["best_model"])
    last = best.with_name("last.ckpt")
    assert best.name != "last.ckpt"
    assert [path.name for path in best.parent.iterdir() if path != best] == ["last.ckpt"]
    assert torch.load(last, map_location="cpu", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("said", [{}, {"mean": [0.25] * 3, "std": [0.5] * 3}])
def test_probing_prepares_images_as_training_did(place, tmp_path, capsys, said):
    """Size and normalisation: the network's own, unless the data module's settings say otherwise."""
    place["data"]["init_args"] = {"train": "data/train", "val": "data/val", "batch_size": 4, **said}
    place["trainer"]["callbacks"] = [
        {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"monitor": "val_acc"}}
    ]
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(place))
    assert cli.main(["train", "--config", "train.yaml", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["best_model"]
    words = ["--model", "timm:test_resnet", "--checkpoint", best, "--data", "data/val", "--attributions", ""]
    assert cli.main(["probe", *words, "--device", "cpu", "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)["preprocessing"]
    assert wanted["size"] == [160, 160]
    assert wanted["mean"] == said.get("mean", [0.5] * 3)
    assert wanted["std"] == [0.5] * 3
    assert wanted["source"] == f"the checkpoint {Path(best).name}"
    from torch_bgdebias.train import MaskedFolders

    data = MaskedFolders("data/train", "data/val", mirror=False)
    assert data.preprocessing == Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)  # no network says anything yet
    assert data.val[0][0].shape == (3, 224, 224)


def test_class_folders_are_the_checkpoints(place, tmp_path, capsys):
    """A folder of fewer classes than were trained on is read by name, not by position."""
    assert cli.main(["train", "--config", "train.yaml", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["best_model"]
    for part in ("images", "masks"):
        (tmp_path / "data/val" / part / "cat").rename(tmp_path / "data/val" / part / "no_longer_a_class")
        shutil.rmtree(tmp_path / "data/val" / part / "no_longer_a_class")
    words = ["--model", "timm:test_resnet", "--checkpoint", best, "--data", "data/val", "--variants", "no_fg"]
    assert cli.main(["probe", *words, "--attributions", "", "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    report = BackgroundBiasReport.from_json(result["files"]["json"])
    assert report.class_names == ["cat", "dog"]
    assert set(report.images.label.tolist()) == {1}


@pytest.mark.parametrize("network", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_train_by_their_logits(network):
    from torch_bgdebias.train import ImageClassifier

    module = ImageClassifier(f"torchvision:{network}", num_classes=2).train()
    logits = module(torch.rand(2, 3, 96, 96) if network == "googlenet" else torch.rand(2, 3, 299, 299))
    assert logits.shape == (2, 2)
    assert logits.requires_grad


def test_other_callbacks_and_a_bank_by_class_path(place, tmp_path, capsys):
    swap = {
        "class_path": "torch_bgdebias.BackgroundSwap",
        "init_args": {
            "source": {
                "class_path": "torch_bgdebias.BackgroundBank.from_folder",
                "init_args": {"root": "scenes", "size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3},
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
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert "bgdebias train --config train.yaml" in printed
    assert cli.main(["train", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    assert cli.main(["train"]) == 2
    assert "usage: bgdebias train" in capsys.readouterr().out


def test_errors(place, tmp_path, capsys):
    for words, code, text in [
        (["--config", "absent.yaml"], 1, "--config: expected a file, found nothing at absent.yaml"),
        (["--config", "train.yaml", "--trainer.max_epoxs", "3"], 2, "max_epoxs"),
        (["--config", "train.yaml", "--model", "NoSuchModel"], 2, "NoSuchModel"),
        (["--config", "train.yaml", "--model.init_args.network", "timm:resnet_18x"], 1, "timm has no 'resnet_18x'"),
        (["--config", "train.yaml", "--data.init_args.val", "nowhere"], 1, "nowhere"),
        (["--config", "train.yaml", "--ckpt_path", "none.ckpt"], 1, "none.ckpt"),
        (["fitt"], 1, "expected one of fit, validate, test, predict or an option, got 'fitt'"),
    ]:
        assert cli.main(["train", *words]) == code, words
        assert text in capsys.readouterr().err, words
    (tmp_path / "data/val/images/dog").rename(tmp_path / "data/val/images/emu")
    (tmp_path / "data/val/masks/dog").rename(tmp_path / "data/val/masks/emu")
    assert cli.main(["train", "--config", "train.yaml"]) == 1
    assert "val: expected the classes of train; not in both: dog, emu" in capsys.readouterr().err


LIGHTNING = """
import torch, lightning as L
from torch.utils.data import DataLoader

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Data(L.LightningDataModule):
    def train_dataloader(self):
        rows = list(zip(torch.rand(8, 3, 8, 8), torch.arange(8) % 3, torch.ones(8, 1, 8, 8).tril()))
        return DataLoader(rows, batch_size=4)
    val_dataloader = train_dataloader
"""


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_modules_data_and_callbacks_of_either_package(tmp_path, monkeypatch, capsys, package):
    name = f"theirs_{package}"
    (tmp_path / f"{name}.py").write_text(
        LIGHTNING.replace("import torch, lightning as L", f"import torch, {package} as L")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    quiet = {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "logger": False}
    swap = {"swap": {"class_path": "torch_bgdebias.BackgroundSwap"}}
    callbacks = [{"class_path": "torch_bgdebias.callbacks.BackgroundSwapCallback", "init_args": swap}]
    callbacks += [{"class_path": "torch_bgdebias.callbacks.CLADCallback", "init_args": swap}]
    callbacks += [{"class_path": "torch_bgdebias.callbacks.ISNetCallback"}]
    settings = {"model": f"{name}.Net", "data": f"{name}.Data", "trainer": {**quiet, "callbacks": callbacks}}
    Path("train.yaml").write_text(yaml.safe_dump(settings))
    assert cli.main(["train", "--config", "train.yaml", "--json"]) == 0
    assert {"background_swap/fraction", "clad/loss", "val_loss"} <= set(json.loads(capsys.readouterr().out)["metrics"])


def test_this_package_s_modules_follow_the_package_of_the_others(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "tally.py").write_text("import lightning.pytorch as L\nclass Tally(L.Callback):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    place["trainer"]["callbacks"] = [{"class_path": "tally.Tally"}]
    Path("train.yaml").write_text(yaml.safe_dump(place))
    assert cli.main(["train", "--config", "train.yaml", "--json"]) == 0
    assert "val_acc" in json.loads(capsys.readouterr().out)["metrics"]
    # and back, in the same process
    place["trainer"]["callbacks"] = [{"class_path": "pytorch_lightning.callbacks.ModelSummary"}]
    Path("train.yaml").write_text(yaml.safe_dump(place))
    assert cli.main(["train", "--config", "train.yaml"]) == 0
    place["trainer"]["callbacks"].append({"class_path": "tally.Tally"})
    Path("train.yaml").write_text(yaml.safe_dump(place))
    assert cli.main(["train", "--config", "train.yaml"]) == 1
    assert "classes: expected those of one Lightning package, got tally.Tally of" in capsys.readouterr().err


def test_errors_of_the_parser_are_one_line(place, tmp_path, capsys):
    """Which class or key, and what is wrong with it; no usage, no list of what else was tried, no traceback."""
    for words, text in [
        (["--model.init_args.networc", "x"], "error: .*networc.* is not accepted"),
        (["--trainer.max_epochs", "many"], r"error: trainer.max_epochs: expected a <class 'int'>, got many"),
        (["--data.init_args.train", "nowhere"], "error: nowhere: expected images/<class>/ and masks/<class>/ in it"),
        (["--data.init_args.batch_size", "0"], "error: batch_size should be a positive integer"),
    ]:
        cli.main(["train", "--config", "train.yaml", *words])
        err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bgdebias train: error")]
        assert len(err) == 1, words
        assert re.search(text, err[0]), err
        assert len(err[0]) < 300


def test_what_is_wrong_is_found_in_a_long_error():
    text = """usage: bgdebias train [-h]
error: Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'A'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'a.Net':
        Option 'widht' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'a.Net'}"""
    assert condensed(text) == "model: a.Net: Option 'widht' is not accepted"
    assert condensed("Unexpected\\n  text").startswith("Unexpected")
