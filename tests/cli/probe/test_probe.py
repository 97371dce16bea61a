"""`bgdebias probe`: from a checkpoint and a masked folder to a report, and its answers to what does not fit."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from PIL import Image
from probe_command import command, trial_nets
from torch.utils.data import DataLoader, Subset

from torch_bgdebias import cli
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.probe import BackgroundBiasReport, compare_models, evaluate_background_bias
from torch_bgdebias.probe.results.pairing import matched_images, nothing_in_common


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
    torch.save(trial_nets().Small().state_dict(), "small.pt")
    words = ("--model", "trial_nets:small", "--checkpoint", "small.pt", "--attributions", "grad_cam,kernel_shap,lrp")
    assert command(*words, "--shap-samples", 120, "--target", "label", "--variants", "mixed_same,mixed_rand") == 0
    printed = capsys.readouterr().out
    for name in ("grad_cam", "kernel_shap", "lrp"):
        assert f"pixel_ratio/{name} mean" in printed
    assert "Open bgdebias-probe/report.html" in printed
    again = BackgroundBiasReport.from_json("bgdebias-probe/report.json")
    assert again.model == "small.pt", "the file, not the network that many a file is of"
    assert list(again.variants) == ["original", "mixed_same", "mixed_rand"]
    assert {len(values) for values in again.images.scores.values()} == {9}


def test_labels_say_which_output_a_class_is(place, capsys):
    words = ("--model", "trial_nets:Wide", "--attributions", "", "--variants", "mixed_rand")
    assert command(*words) == 1
    assert "the model has 1000 outputs and the data 3 classes (cat, dog, emu, ...)" in capsys.readouterr().err
    (place / "labels.json").write_text('{"cat": 0, "dog": 1, "emu": 2}')
    assert command(*words, "--labels", "labels.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["original"]["value"] == 1
    for text, message in (
        ('{"cat": 0, "dog": 1, "emu": 1000}', "label 1000 (emu) is outside the model's 1000 outputs"),
        ('{"cat": 0, "dog": 1}', "has no output for emu"),
        ('{"cat": "0"}', "with whole numbers"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ):
        (place / "labels.json").write_text(text)
        assert command(*words, "--labels", "labels.json") == 1
        assert message in capsys.readouterr().err


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
    ("model", "text"),
    [
        ("resnet18", "package.module:attribute, got 'resnet18'; did you mean torchvision:resnet18 or timm:resnet18?"),
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
def test_models_that_are_not_there(place, capsys, model, text):
    assert command("--model", model, "--attributions", "") == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_usage(place, capsys):
    assert command() == 2
    assert command("--model", "trial_nets:Small", "--attributions", "gradcam") == 2
    assert "expected some of grad_cam, kernel_shap, lrp, got gradcam" in capsys.readouterr().err
    for words, text in (
        (("--mean", 0.5), "--mean and --std: expected both or none, got only --mean"),
        (("--device", "nowhere"), "--device: nowhere cannot be used"),
        (("--pretrained",), "--pretrained: expected a timm: or torchvision: model"),
        (("--checkpoint", "absent.pt"), "--checkpoint: expected a file or folder, found nothing at absent.pt"),
        (("--data", "elsewhere"), "--data: expected a file or folder, found nothing at elsewhere"),
    ):
        assert command("--model", "trial_nets:Small", *words) == 1
        assert text in capsys.readouterr().err


def test_another_model_s_report_is_kept(place, capsys):
    """The same model may be measured again; another one needs --overwrite."""
    words = ["probe", "--data", "data", "--size", "12", "--device", "cpu", "--attributions", "", "--out", "out"]
    first = [*words, "--model", "trial_nets:Corner", "--variants", "only_fg"]
    assert cli.main(first) == 0
    assert cli.main(first) == 0
    capsys.readouterr()
    torch.save(trial_nets().Corner().state_dict(), "other.pt")
    assert cli.main([*first, "--checkpoint", "other.pt"]) == 1, "a name says nothing of a checkpoint's weights"
    assert "already; pass --overwrite" in capsys.readouterr().err
    other = [*words, "--model", "trial_nets:Small", "--name", "another", "--variants", "only_fg"]
    capsys.readouterr()
    assert cli.main(other) == 1
    assert "--out: out holds report.html, report.json already; pass --overwrite" in capsys.readouterr().err
    assert cli.main([*other, "--labels", "data"]) == 1, "what is wrong with the input comes before what is there"
    assert "--overwrite" not in capsys.readouterr().err


def test_models_of_other_sizes_are_measured_on_the_same_backgrounds(place):
    for size in ("12", "16"):
        words = ["probe", "--data", "data", "--size", size, "--device", "cpu", "--attributions", "", "--out", size]
        assert cli.main([*words, "--model", "trial_nets:Corner", "--name", size, "--variants", "mixed_rand"]) == 0
    one, two = (BackgroundBiasReport.from_json(f"{size}/report.json").images for size in ("12", "16"))
    rows = matched_images(one, two)
    assert rows is not None
    assert len(rows[0]) == len(one)
    backgrounds = [images.background_label["mixed_rand"][row] for images, row in zip((one, two), rows, strict=True)]
    assert backgrounds[0].tolist() == backgrounds[1].tolist()


def test_python_measures_the_same_as_the_command(place):
    """Images were known by their pictures here and by their files there, and drew other backgrounds."""
    words = ["probe", "--data", "data", "--size", "12", "--device", "cpu", "--attributions", "", "--out", "out"]
    assert cli.main([*words, "--model", "trial_nets:Small", "--name", "shell"]) == 0
    shell = BackgroundBiasReport.from_json("out/report.json")
    data = MaskedImageFolder("data", size=12)
    backwards = Subset(Subset(data, range(9)), list(range(9))[::-1])
    for loader in (DataLoader(data, 4), DataLoader(data, 2, shuffle=True), DataLoader(backwards, 3, num_workers=1)):
        here = evaluate_background_bias(trial_nets().Small(), loader, name="here", num_classes=3)
        (comparison,) = compare_models([shell, here])
        assert comparison is not None
        assert comparison.n == 9
        assert comparison.differing == []
        for variant, answers in shell.images.prediction.items():
            assert answers.tolist() == here.images.prediction[variant].tolist()
    own = evaluate_background_bias(trial_nets().Small(), [next(iter(DataLoader(data, 9)))], name="own")
    assert compare_models([shell, own]) == [None]
    assert "own by picture, mask and label: measure both in the same way" in nothing_in_common(shell, own)


def test_a_folder_that_changes_its_pictures_is_told(place):
    """Known by their files, they would be taken for the same pictures each time."""

    def noise(image, mask):
        return image + 0.1 * torch.rand(image.shape), mask

    for transform, changes in ((noise, True), (lambda image, mask: (image * 2, mask), False)):
        data = MaskedImageFolder("data", size=12, transform=transform)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = evaluate_background_bias(trial_nets().Small(), DataLoader(data, 4))
        assert any("so it changes them at random" in str(w.message) for w in caught) is changes
        assert report.settings.get("changing_images", False) is changes
