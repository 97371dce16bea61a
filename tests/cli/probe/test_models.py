"""Models by name and their checkpoints, as `bgdebias probe` opens them."""

from __future__ import annotations

import json

import torch
from probe_command import command, trial_nets

from torch_bgdebias import cli, named_models as _models


def test_checkpoints_of_every_kind_fit(place):
    source = trial_nets().Small()
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
    state = trial_nets().Small().state_dict()
    wrong = {k: v for k, v in state.items() if k != "fc.bias"} | {"head.bias": torch.ones(3)}
    wrong["fc.weight"] = torch.ones(5, 4)
    torch.save(wrong, "wrong.pt")
    torch.save({**state, "fc.weight": torch.ones(5, 4), "fc.bias": torch.ones(5)}, "classes.pt")
    torch.save({"epoch": 3}, "empty.pt")
    torch.save(trial_nets().Small(), "pickled.pt")
    (place / "text.pt").write_text("hello")
    for name, text in (
        ("wrong", "1 missing (fc.bias); 1 unexpected (head.bias); 1 of another shape: (fc.weight is (5, 4) in the"),
        ("classes", "another number of classes?"),
        ("empty", "expected a state dict, alone or under state_dict, model_state_dict, model"),
        ("pickled", "it holds more than tensors"),
        ("text", "text.pt"),
    ):
        assert command("--model", "trial_nets:Small", "--checkpoint", f"{name}.pt") == 1
        err = capsys.readouterr().err
        assert text in err
        assert err.count("\n") == 1


def test_a_folder_of_checkpoints_is_one_page_in_the_order_that_people_count(place, capsys):
    (place / "runs").mkdir()
    for epoch in (10, 9, 1):
        torch.save(trial_nets().Small().state_dict(), f"runs/epoch{epoch}.pt")
    (place / "runs" / "notes.txt").write_text("none of them")
    assert command("--model", "trial_nets:Small", "--checkpoint", "runs", "--attributions", "", "--out", "all") == 0
    names = [json.loads((place / "all" / f"model-{i}" / "report.json").read_text())["model"] for i in (1, 2, 3)]
    assert names == ["epoch1.pt", "epoch9.pt", "epoch10.pt"]
    page = (place / "all" / "report.html").read_text()
    assert all(f"BG-Gap: {name}" in page for name in names)
    capsys.readouterr()
    (place / "none").mkdir()
    assert command("--model", "trial_nets:Small", "--checkpoint", "none") == 1
    assert "none holds none" in capsys.readouterr().err


def test_named_families_make_models_of_the_datas_classes():
    model = _models.load_model("torchvision:squeezenet1_1", num_classes=5)
    assert model.model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert model.preprocessing.size == (224, 224)
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)
    model = _models.load_model("timm:test_resnet", num_classes=4)
    assert model.model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert model.preprocessing.size == tuple(model.model.pretrained_cfg["input_size"][1:])


def test_a_size_that_nobody_gave_is_named(place, capsys):
    def said(*options):
        words = ["--data", "data", "--model", "trial_nets:Small", "--device", "cpu", "--variants", "only_fg", *options]
        assert cli.main(["probe", *words]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "pictures are resized" in line]

    (line,) = said("--out", "a")
    text = "pictures are resized to 224 x 224, since nothing says another size; --size N if it was trained at N"
    assert line.endswith(text)
    assert said("--size", "12", "--out", "b") == []
    assert "<li>" in (page := (place / "a" / "report.html").read_text(encoding="utf-8"))
    assert "Pictures are resized to 224 x 224, since nothing says another size." in page
    assert "Pictures are resized" not in (place / "b" / "report.html").read_text(encoding="utf-8")


def test_an_exported_program_is_no_model_to_measure(place, capsys):
    network = "def load(): return torch.export.export(Small().eval(), (torch.rand(2, 3, 12, 12),)).module()"
    (place / "exported_nets.py").write_text(f"import torch\nfrom trial_nets import Small\n{network}\n")
    assert command("--model", "exported_nets:load") == 1
    assert "error: --model: GraphModule cannot be put into evaluation mode" in capsys.readouterr().err
