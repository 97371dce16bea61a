"""`bgdebias probe`: from a checkpoint and a masked folder to a report, and its answers to what does not fit."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias import cli, named_models as _models
from torch_bgdebias.probe import BackgroundBiasReport

NETS = '''
import torch
from torch import nn

class Corner(nn.Module):
    """Reads the class off one corner, which is background: class i where channel i is brightest."""
    def __init__(self, classes=3):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.classes = classes
    def forward(self, x):
        found = x[:, :, :2, :2].mean((2, 3)) * self.scale
        return nn.functional.pad(found, (0, self.classes - 3))

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))

class Wide(Corner):
    def __init__(self):
        super().__init__(1000)

class Nine(nn.Module):
    """Channel 0 in the corner is a dog, channel 1 a fish."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 9)
    def forward(self, x):
        out = self.fc(self.conv(x).mean((2, 3))) * 1e-6
        corner = x[:, :2, :2, :2].mean((2, 3))
        out = out.index_add(1, torch.tensor([0, 8]), corner)
        return out

class Twenty(Corner):
    def __init__(self):
        super().__init__(20)

def small():
    return Small()

class Grown(nn.Module):
    def __init__(self, classes):
        super().__init__()

broken = nn.Linear(5, 3)
number = 3
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A masked folder of three classes whose backgrounds are their colour, a module of networks, and we are there."""
    for label, name in enumerate(("cat", "dog", "emu")):
        for i in range(3):
            pixels = np.full((12, 12, 3), 20, np.uint8)
            pixels[..., label] = 200 + i
            mask = np.zeros((12, 12), np.uint8)
            mask[4:8, 4 : 9 - i] = 255
            pixels[mask > 0] = 255
            for path, values in ((f"images/{name}/{i}.png", pixels), (f"masks/{name}/{i}.png", mask)):
                (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(tmp_path / "data" / path)
    (tmp_path / "trial_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("trial_nets", None)
    yield tmp_path
    sys.modules.pop("trial_nets", None)


def command(*words):
    return cli.main(["probe", "--data", "data", "--size", "12", "--device", "cpu", *map(str, words)])


def test_finds_the_background(place, capsys):
    words = ("--model", "trial_nets:Corner", "--attributions", "kernel_shap", "--shap-samples", 150)
    with pytest.warns(UserWarning, match="feature consistency is left out"):
        assert command(*words, "--examples", 2, "--out", "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "torch_bgdebias.probe/1"
    assert printed["accuracy"]["original"]["value"] == 1
    assert printed["accuracy"]["mixed_same"]["value"] == 1
    assert printed["bg_gap"]["value"] > 0.3
    assert printed["scores"]["pixel_ratio/kernel_shap"]["mean"]["value"] < 0.1
    report = BackgroundBiasReport.from_json(printed["files"]["json"])
    assert report.class_names == ["cat", "dog", "emu"]
    assert len(report.images) == 9
    assert report.model == "trial_nets:Corner"
    assert list(report.examples[0].heatmaps) == ["kernel_shap"]
    page = (place / "out/report.html").read_text(encoding="utf-8")
    assert "heatmap: kernel_shap" in page
    assert "Where the model looks" in page
    assert "explained class" in page
    assert "150 coalitions" in page


def test_every_attribution_and_the_summary(place, capsys):
    pytest.importorskip("zennit")
    torch.save(_nets().Small().state_dict(), "small.pt")
    words = ("--model", "trial_nets:small", "--checkpoint", "small.pt", "--attributions", "grad_cam,kernel_shap,lrp")
    assert command(*words, "--shap-samples", 120, "--target", "label", "--variants", "mixed_same,mixed_rand") == 0
    printed = capsys.readouterr().out
    for name in ("grad_cam", "kernel_shap", "lrp"):
        assert f"pixel_ratio/{name} mean" in printed
    assert "Open bgdebias-probe/report.html" in printed
    again = BackgroundBiasReport.from_json("bgdebias-probe/report.json")
    assert list(again.variants) == ["original", "mixed_same", "mixed_rand"]
    assert {len(values) for values in again.images.scores.values()} == {9}


def _nets():
    import importlib

    sys.path.insert(0, ".")
    return importlib.import_module("trial_nets")


def test_labels_say_which_output_a_class_is(place, capsys):
    words = ("--model", "trial_nets:Wide", "--attributions", "", "--variants", "mixed_rand")
    assert command(*words) == 1
    assert "the model has 1000 outputs and the data 3 classes (cat, dog, emu, ...)" in capsys.readouterr().err
    (place / "labels.json").write_text('{"cat": 0, "dog": 1, "emu": 2}')
    assert command(*words, "--labels", "labels.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["original"]["value"] == 1
    for text, told in (
        ('{"cat": 0, "dog": 1, "emu": 1000}', "label 1000 (emu) is outside the model's 1000 outputs"),
        ('{"cat": 0, "dog": 1}', "has no output for emu"),
        ('{"cat": "0"}', "with whole numbers"),
        ("{", "is not JSON"),
    ):
        (place / "labels.json").write_text(text)
        assert command(*words, "--labels", "labels.json") == 1
        assert told in capsys.readouterr().err


def test_more_classes_than_outputs(place, capsys):
    for i in range(2):
        (place / f"data/images/new{i}").mkdir()
        (place / f"data/masks/new{i}").mkdir()
        for part in ("images", "masks"):
            Image.new("L", (12, 12), 255).save(place / f"data/{part}/new{i}/a.png")
    assert command("--model", "trial_nets:Small") == 1
    assert "label 4 (new1) is outside the model's 3 outputs" in capsys.readouterr().err


def test_missing_masks_and_empty_classes_are_told(place, capsys):
    (place / "data/masks/cat/0.png").unlink()
    (place / "data/images/fox").mkdir()
    assert command("--model", "trial_nets:Wide", "--labels", "l.json") == 1
    capsys.readouterr()
    (place / "l.json").write_text('{"cat": 0, "dog": 1, "emu": 2, "fox": 3}')
    words = ("--model", "trial_nets:Wide", "--labels", "l.json", "--attributions", "", "--variants", "no_fg")
    assert command(*words) == 1
    assert "1 of 9 images have no mask: masks/cat/0.png" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="skipped 1 of 9 images"):
        assert command(*words, "--on-error", "skip", "--json") == 0
    captured = capsys.readouterr()
    notes = json.loads(captured.out)["notes"]
    assert notes["pictures left out"] == 1
    assert notes["classes without pictures"] == "fox"
    assert "classes without pictures: fox" in captured.err


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("resnet18", "expected timm:NAME, torchvision:NAME or package.module:attribute, got 'resnet18'"),
        ("torchvision:resnet81", "torchvision has no classifier 'resnet81'; near names: resnet18"),
        ("timm:resnet81", "timm has no 'resnet81'; near names: resnet18"),
        ("no_such_module:net", "cannot import no_such_module"),
        ("trial_nets:smal", "trial_nets has no 'smal'; near names: small"),
        ("trial_nets:Grown", "name something that can be called without arguments"),
        ("trial_nets:number", "gave a int, expected a torch.nn.Module"),
        ("torch.nn:Flatten", "the model has 432 outputs and the data 3 classes"),
        (
            "torch.nn:Identity",
            "expected logits of at least two classes (B, K), got float32 tensor of shape (1, 3, 12, 12)",
        ),
        ("trial_nets:broken", "Linear failed on a picture (1, 3, 12, 12): "),
    ],
)
def test_models_that_are_not_there(place, capsys, model, told):
    assert command("--model", model, "--attributions", "") == 1
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_usage(place, capsys):
    assert command() == 2
    assert command("--model", "trial_nets:Small", "--attributions", "gradcam") == 2
    assert "expected some of grad_cam, kernel_shap, lrp, got gradcam" in capsys.readouterr().err
    for words, told in (
        (("--mean", 0.5), "--mean and --std: expected both or none, got only --mean"),
        (("--device", "nowhere"), "--device: nowhere cannot be used"),
        (("--pretrained",), "--pretrained: expected a timm: or torchvision: model"),
        (("--checkpoint", "absent.pt"), "--checkpoint: no such file: absent.pt"),
        (("--data", "elsewhere"), "--data: expected images/<class>/ and masks/<class>/ in elsewhere"),
    ):
        assert command("--model", "trial_nets:Small", *words) == 1
        assert told in capsys.readouterr().err


def test_checkpoints_of_every_kind_fit(place):
    source = _nets().Small()
    for value in source.parameters():
        value.data.normal_()
    state = source.state_dict()
    kinds = {
        "plain": state,
        "parallel": {"module." + k: v for k, v in state.items()},
        "compiled": {"state_dict": {"_orig_mod." + k: v for k, v in state.items()}, "epoch": 3},
        "lightning": {"state_dict": {**{"net." + k: v for k, v in state.items()}, "loss.weight": torch.ones(2)}},
    }
    for name, content in kinds.items():
        torch.save(content, f"{name}.pt")
        loaded = _models.load_model("trial_nets:Small", checkpoint=place / f"{name}.pt").model
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items()), name


def test_checkpoints_that_do_not_fit(place, capsys):
    state = _nets().Small().state_dict()
    wrong = {k: v for k, v in state.items() if k != "fc.bias"} | {"head.bias": torch.ones(3)}
    wrong["fc.weight"] = torch.ones(5, 4)
    torch.save(wrong, "wrong.pt")
    torch.save({**state, "fc.weight": torch.ones(5, 4), "fc.bias": torch.ones(5)}, "classes.pt")
    torch.save({"epoch": 3}, "empty.pt")
    torch.save(_nets().Small(), "pickled.pt")
    (place / "text.pt").write_text("hello")
    for name, told in (
        ("wrong", "1 missing (fc.bias); 1 unexpected (head.bias); 1 of another shape: (fc.weight is (5, 4) in the"),
        ("classes", "another number of classes?"),
        ("empty", "expected a state dict, alone or under state_dict, model_state_dict, model"),
        ("pickled", "it holds more than tensors"),
        ("text", "text.pt"),
    ):
        assert command("--model", "trial_nets:Small", "--checkpoint", f"{name}.pt") == 1
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1


def test_named_families_make_models_of_the_datas_classes():
    found = _models.load_model("torchvision:squeezenet1_1", num_classes=5)
    assert found.model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert found.preprocessing.size == (224, 224)
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)
    found = _models.load_model("timm:test_resnet", num_classes=4)
    assert found.model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert found.preprocessing.size == tuple(found.model.pretrained_cfg["input_size"][1:])


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
    told = {name: figure["value"] for name, figure in printed["accuracy"].items()}
    assert told == pytest.approx({"original": 1, "only_bg_t": 1, "mixed_same": 1, "mixed_rand": 1 / 3})
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


def test_adversarial_backgrounds(place, capsys):
    """The corner's class is the background's, so any other class's background fools it."""
    words = ("--model", "trial_nets:Corner", "--attributions", "", "--variants", "no_fg", "--json", "--adversarial")
    assert command(*words, 100) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["adversarial_accuracy"]["mean"]["value"] == 0
    assert printed["notes"]["adversarial backgrounds"] == "9 (100 asked for)"
    assert command(*words, 1) == 0  # the first picture's alone, a cat's
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["adversarial_accuracy"]["mean"]["value"] == pytest.approx(1 / 3)
    for mask in (place / "data/masks").rglob("*.png"):
        Image.new("L", (12, 12), 255).save(mask)
    assert command(*words, 5) == 1
    assert "none of 5 pictures has a background beside its foreground" in capsys.readouterr().err


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
    assert printed["accuracy"]["original"] == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 2}
    assert printed["notes"]["pictures left out"] == 1
    assert command(*words, "--data", "nothing") == 1
    assert "--data: no PASCAL VOC 2012 in nothing" in capsys.readouterr().err
