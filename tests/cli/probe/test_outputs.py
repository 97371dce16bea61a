"""`bgdebias probe`: which output is which class, where the logits are, several models, grey ones."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from probe_command import command

from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint
from torch_bgdebias.cli.probe.outputs import outputs_by_name
from torch_bgdebias.named_models import load_model
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import BackgroundBiasReport

NETS = '''
import torch
from torch import nn
from trial_nets import Corner

class Split(Corner):
    """Six outputs: a cat is 0 or 3, a dog 1 or 4, and 2 and 5 are an emu."""
    def __init__(self):
        super().__init__(3)
    def forward(self, x):
        found = super().forward(x)
        return torch.cat([found - 1, found], 1)

class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

class Pair(Corner):
    def forward(self, x):
        return x, super().forward(x)

class Named(Corner):
    def forward(self, x):
        return {"image": x, "scores": super().forward(x)}

class Five(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(5, 4, 3), nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))
'''
WORDS = ("--attributions", "", "--variants", "mixed_same,mixed_rand", "--json")


@pytest.fixture(autouse=True)
def nets(place):
    (place / "more_nets.py").write_text(NETS)
    return place


def printed(capsys):
    return json.loads(capsys.readouterr().out)


def test_several_outputs_a_class(place, capsys):
    (place / "l.json").write_text('{"cat": [0, 3], "dog": [1, 4], "emu": 2}')
    words = ("--model", "more_nets:Split", "--labels", "l.json")
    with pytest.warns(UserWarning, match="feature consistency"):
        assert command(*words, *WORDS) == 0
    result = printed(capsys)
    # the emu's answer is output 5, which is none of them
    assert result["accuracy"]["original"]["value"] == pytest.approx(2 / 3)
    report = BackgroundBiasReport.from_json(result["files"]["json"])
    assert report.class_names == ["cat", "dog", "emu", "none of them"]
    (place / "l.json").write_text('{"cat": [0, 3], "dog": [1, 4], "emu": [2, 5]}')
    for score in ("best", "sum"):
        with pytest.warns(UserWarning, match="feature consistency"):
            assert command(*words, *WORDS, "--score", score) == 0
        result = printed(capsys)
        assert result["accuracy"]["original"]["value"] == 1
        assert BackgroundBiasReport.from_json(result["files"]["json"]).class_names == ["cat", "dog", "emu"]


def test_label_files_of_other_programs(place, capsys):
    words = ("--model", "trial_nets:Corner", "--labels", "l.json", *WORDS)
    (place / "l.json").write_bytes(b'\xef\xbb\xbf{"cat": 0, "dog": 1, "emu": 2}')
    with pytest.warns(UserWarning, match="feature consistency"):
        assert command(*words) == 0
    capsys.readouterr()
    for text, said in (
        ('{"cat": [0, 1], "dog": [1], "emu": 2}', "gives output 1 to cat and to dog"),
        ('{"cat": 0, "cat": 1, "dog": 1, "emu": 2}', "names cat more than once"),
        ('{"cat": [], "dog": 1, "emu": 2}', "with whole numbers, got 'cat': []"),
        ("[0, 1, 2]", 'expected {"class folder": output, ...}'),
    ):
        (place / "l.json").write_text(text)
        assert command(*words) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("outputs", ["1", "[1, 4]"])
def test_folders_with_the_same_outputs_are_one_class(place, capsys, outputs):
    """Data that is divided further than the model's classes."""
    rest = "[2, 5]" if outputs.startswith("[") else "2"
    (place / "l.json").write_text(f'{{"cat": {outputs}, "dog": {outputs}, "emu": {rest}}}')
    with pytest.warns(UserWarning, match="feature consistency"):
        assert command("--model", "more_nets:Split", "--labels", "l.json", *WORDS) == 0
    captured = capsys.readouterr()
    assert "note: --labels: cat and dog are one class of the model" in captured.err
    report = BackgroundBiasReport.from_json(json.loads(captured.out)["files"]["json"])
    assert "cat + dog" in report.class_names
    label = report.class_names.index("cat + dog")
    assert (report.images.label == label).sum() == 6


def test_where_the_logits_are(capsys):
    for model, key in (("Pair", "1"), ("Named", "scores")):
        with pytest.warns(UserWarning, match="feature consistency"):
            assert command("--model", f"more_nets:{model}", "--logits", key, *WORDS) == 0
        assert printed(capsys)["accuracy"]["original"]["value"] == 1
    assert command("--model", "more_nets:Pair", *WORDS) == 1
    err = capsys.readouterr().err
    assert "--logits: Pair returned a tuple of 0: float32 tensor of shape (1, 3, 12, 12), 1: float32 tensor of" in err
    assert command("--model", "more_nets:Named", "--logits", "score", *WORDS) == 1
    assert "a dict of image: " in capsys.readouterr().err


def test_grey_models(capsys):
    """The first convolution says how many channels it takes; --channels overrules it."""
    assert command("--model", "more_nets:Grey", *WORDS) == 0
    assert printed(capsys)["accuracy"]["original"]["n"] == 9
    assert command("--model", "more_nets:Grey", "--channels", 3, *WORDS) == 1
    assert "failed on a picture (1, 3, 12, 12)" in capsys.readouterr().err
    assert command("--model", "more_nets:Five", *WORDS) == 1
    assert "--channels: the model's first convolution takes 5; pictures have 1 or 3" in capsys.readouterr().err
    assert command("--model", "timm:test_resnet", "--channels", 1, "--size", 32, *WORDS) == 0
    assert printed(capsys)["preprocessing"]["mean"] == [0.5]


def test_a_lightning_checkpoint_s_own_class_names_are_followed(place, capsys):
    """Outputs in another order than the folders were measured as if they were in theirs: accuracy 0 for 100 %."""
    (place / "own.py").write_text(
        "from trial_nets import Corner\n"
        "class Turned(Corner):\n"
        "    def forward(self, x):\n        return super().forward(x)[:, [2, 0, 1]]\n"
    )
    words = ("--model", "own:Turned", "--checkpoint", "own.ckpt", *WORDS)
    for names, text, rc in (
        (["emu", "Cat", "dog"], "", 0),
        (["emu", "cat", "cow"], "the model's outputs are called emu, cat, cow, and dog is not among them", 1),
        (
            ["emu", "cat", "cow", "dog"],
            "note: 4 names of outputs are known (emu, cat, cow, dog) and the model has 3",
            0,
        ),
    ):
        state = {"scale": torch.tensor(8.0)}
        torch.save({"state_dict": state, "hyper_parameters": {"class_names": names}}, place / "own.ckpt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert command(*words, "--overwrite") == rc
        captured = capsys.readouterr()
        assert text in captured.err
        if rc == 0:
            accuracy = json.loads(captured.out)["accuracy"]["original"]["value"]
            assert accuracy == (1 if len(names) == 3 else 0)


def test_checkpoints_tell_outputs_names_and_images(place, capsys):
    wanted = Preprocessing(16, [0.25] * 3, [0.5] * 3)
    state = load_model("timm:test_resnet", num_classes=4).model.state_dict()

    def save(classes):
        torch.save({"state_dict": state, NOTES: notes_for_checkpoint(wanted, classes)}, "last.ckpt")

    words = ("--model", "timm:test_resnet", "--checkpoint", "last.ckpt", *WORDS)
    save(["emu", "dog", "ape", "cat"])
    assert command(*words) == 0
    result = printed(capsys)
    assert result["preprocessing"]["mean"] == [0.25] * 3
    assert result["preprocessing"]["size"] == [12, 12]  # --size overrules it
    assert result["preprocessing"]["source"] == "the checkpoint last.ckpt"
    report = BackgroundBiasReport.from_json(result["files"]["json"])
    assert report.class_names == ["emu", "dog", "ape", "cat"]
    assert sorted(set(report.images.label.tolist())) == [0, 1, 3]
    page = (place / "bgdebias-probe/report.html").read_text(encoding="utf-8")
    assert "12 x 12 bilinear, mean (0.25, 0.25, 0.25), std (0.5, 0.5, 0.5) (the checkpoint last.ckpt)" in page
    save(None)
    assert command(*words) == 1
    assert "the model has 4 outputs and the data 3 classes" in capsys.readouterr().err


def test_class_folders_that_the_checkpoint_does_not_know(capsys):
    state = load_model("timm:test_resnet", num_classes=3).model.state_dict()
    torch.save({"state_dict": state, NOTES: notes_for_checkpoint(None, ["cat", "dog", "ape"])}, "last.ckpt")
    assert command("--model", "timm:test_resnet", "--checkpoint", "last.ckpt", *WORDS) == 1
    err = capsys.readouterr().err
    assert "the model's outputs are called cat, dog, ape, and emu is not among them: say with --labels FILE" in err


def test_several_models_on_one_page(place, capsys):
    with pytest.warns(UserWarning, match="feature consistency"):
        assert command("--model", "trial_nets:Corner", "--model", "trial_nets:Small", *WORDS, "--out", "two") == 0
    result = printed(capsys)
    assert result["schema"] == "torch_bgdebias.probe-models/1"
    assert [model["model"] for model in result["models"]] == ["trial_nets:Corner", "trial_nets:Small"]
    assert result["models"][0]["accuracy"]["original"]["value"] == 1
    assert len(result["comparisons"]) == 1
    assert result["comparisons"][0] is not None
    page = (place / "two/report.html").read_text(encoding="utf-8")
    assert "trial_nets:Corner" in page
    assert "trial_nets:Small" in page
    for number, model in enumerate(result["models"], start=1):
        assert model["files"]["json"] == f"two/model-{number}/report.json"
        assert BackgroundBiasReport.from_json(model["files"]["json"]).model == model["model"]


def test_checkpoints_of_one_model_are_named_by_what_tells_them_apart(place, capsys):
    state = load_model("timm:test_resnet", num_classes=3).model.state_dict()
    for folder in ("before", "after"):
        (place / folder).mkdir()
        torch.save(state, place / folder / "last.pt")
    words = ("--model", "timm:test_resnet", "--checkpoint", "before/last.pt", "--checkpoint", "after/last.pt")
    assert command(*words, *WORDS) == 0
    assert [model["model"] for model in printed(capsys)["models"]] == ["before/last.pt", "after/last.pt"]
    assert command(*words, *WORDS, "--name", "old", "--name", "new") == 0
    assert [model["model"] for model in printed(capsys)["models"]] == ["old", "new"]
    for more, said in (
        (("--name", "old"), "--name: expected one a model, 2, got 1"),
        (("--name", "old", "--name", "old"), "--name: expected names that differ, got old, old"),
        (
            ("--model", "timm:test_resnet", "--checkpoint", "before/last.pt"),
            "--checkpoint: expected one a model, or several of one",
        ),
    ):
        assert command(*words, *WORDS, *more) == 1
        assert said in capsys.readouterr().err


def test_another_number_of_outputs_than_the_model_has(capsys):
    """It was passed over for models of one's own, which are made without arguments."""
    assert command("--model", "trial_nets:Small", *WORDS, "--classes", "5") == 1
    assert "--classes: expected the model's number of outputs, 3, got 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "known", "places"),
    [
        (["t-shirt", "t_shirt"], ["t_shirt", "t-shirt"], [1, 0]),  # as they are written, or they would be one
        (["Big cat", "dog"], ["dog", "big_cat", "emu"], [1, 0]),
        (["big cat", "dog"], ["dog", "big_cat", "big-cat"], None),
        (["Dog", "dog"], ["dog", "cat"], None),
    ],
)
def test_classes_go_by_their_names_before_capitals_and_dashes_are_passed_over(names, known, places):
    assert outputs_by_name(names, known) == places
