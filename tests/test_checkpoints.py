"""What checkpoints tell beside their weights: how many outputs, which images, what the classes are called."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint, read_checkpoint
from torch_bgdebias.named_models import load_model
from torch_bgdebias.preprocessing import Preprocessing


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small"])
def test_the_number_of_outputs_is_the_checkpoints(tmp_path, name):
    source = load_model(name, num_classes=7).model
    torch.save({"state_dict": {"network." + k: v for k, v in source.state_dict().items()}}, tmp_path / "seven.ckpt")
    loaded = load_model(name, checkpoint=tmp_path / "seven.ckpt")
    size = loaded.preprocessing.height_width
    assert loaded.model.eval()(torch.zeros(1, 3, *size)).shape == (1, 7)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(ValueError, match="does not fit .* another number of classes"):
        load_model(name, num_classes=5, checkpoint=tmp_path / "seven.ckpt")


def test_other_networks_stay_errors(tmp_path):
    torch.save(load_model("timm:test_resnet").model.state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"checkpoint: .*other.pt does not fit SqueezeNet: \d+ missing .*unexpected"):
        load_model("torchvision:squeezenet1_1", checkpoint=tmp_path / "other.pt")


def test_notes_go_around(tmp_path):
    wanted = Preprocessing(96, [0.5] * 3, [0.25] * 3)
    state = load_model("timm:test_resnet", num_classes=2).model.state_dict()
    torch.save({"state_dict": state, NOTES: notes_for_checkpoint(wanted, ["cat", "dog"])}, tmp_path / "a.ckpt")
    loaded = load_model("timm:test_resnet", checkpoint=tmp_path / "a.ckpt")
    assert loaded.preprocessing == wanted
    assert loaded.preprocessing.source == "the checkpoint a.ckpt"
    assert loaded.classes == ("cat", "dog")
    plain = load_model("timm:test_resnet")
    assert plain.classes is None
    assert plain.preprocessing.source == "timm's data config of test_resnet"
    torch.save({"state_dict": state, NOTES: notes_for_checkpoint(None, None)}, tmp_path / "b.ckpt")
    assert read_checkpoint(tmp_path / "b.ckpt").preprocessing is None


def test_published_weights_say_what_they_want(monkeypatch):
    """Sizes and normalisation of torchvision's own transforms; nothing is downloaded."""
    from torchvision import models

    tiny = nn.Linear(1, 1)
    monkeypatch.setattr(models, "get_model", lambda name, **_: tiny)
    wanted = load_model("torchvision:efficientnet_v2_l").preprocessing
    assert (wanted.size, wanted.mean, wanted.std) == ((480, 480), (0.5,) * 3, (0.5,) * 3)
    assert "EfficientNet_V2_L_Weights.IMAGENET1K_V1" in wanted.source
    assert load_model("torchvision:inception_v3").preprocessing.size == (299, 299)
    known = load_model("torchvision:resnet18", pretrained=True).classes
    assert known is not None
    assert known[1] == "goldfish"


def test_a_vision_transformer_is_asked_for_its_own_size():
    """vit_h_14's published weights want 518 pixels, the network without them 224."""
    loaded = load_model("torchvision:vit_b_16", num_classes=2)
    assert loaded.preprocessing.size == (loaded.model.image_size,) * 2


def test_channels():
    loaded = load_model("timm:test_resnet", num_classes=2, channels=1)
    assert loaded.model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 2)
    assert loaded.preprocessing.mean == (0.5,)
    with pytest.raises(ValueError, match="channels: expected 3 with torchvision's models, got 1"):
        load_model("torchvision:resnet18", channels=1)


@pytest.mark.parametrize("notes", [{"preprocessing": 5}, {"preprocessing": {"size": "a"}}, {"classes": 7}])
def test_notes_of_another_kind_are_named(tmp_path, notes):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, NOTES: notes}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"checkpoint: .*a.ckpt: "):
        read_checkpoint(tmp_path / "a.ckpt")


def damage(path, seeds: range) -> None:
    """Each damaged file is read, or refused by a ValueError that names it."""
    for old in (False, True):  # a zip archive, and a pickle as older torch writes
        torch.save({"state_dict": {"weight": torch.arange(4.0)}}, path, _use_new_zipfile_serialization=not old)
        whole = path.read_bytes()
        for seed in seeds:
            draw = random.Random(seed)
            place = draw.randrange(len(whole))
            rest = b"" if draw.random() < 0.3 else draw.randbytes(draw.choice([1, 4, 20])) + whole[place + 20 :]
            path.write_bytes(whole[:place] + rest)
            try:
                read_checkpoint(path)
            except ValueError as error:
                if path.name not in str(error):
                    pytest.fail(f"seed {seed}: {error}")


def test_damaged_checkpoints_are_refused_by_name(tmp_path):
    damage(tmp_path / "a.ckpt", range(100))


@pytest.mark.slow
def test_twenty_thousand_damaged_checkpoints(tmp_path):
    damage(tmp_path / "a.ckpt", range(100, 10_100))


@pytest.mark.parametrize("prefix", ["net.", "model.", "module.", "model.module.net.", "_orig_mod.module.backbone."])
def test_what_modules_around_a_network_put_before_its_names_is_taken_off(tmp_path, prefix):
    source = load_model("timm:test_resnet", num_classes=2).model.state_dict()
    state = {prefix + name: value for name, value in source.items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    loaded = load_model("timm:test_resnet", checkpoint=tmp_path / "a.ckpt").model.state_dict()
    assert all(torch.equal(value, source[name]) for name, value in loaded.items())


def test_a_folder_in_place_of_a_checkpoint_says_what_it_holds(tmp_path):
    """A metric's name with a slash in a checkpoint's name makes a folder of it."""
    (tmp_path / "epoch=0-bias").mkdir()
    torch.save({"a": torch.ones(1)}, tmp_path / "epoch=0-bias" / "bg_gap=0.1.ckpt")
    with pytest.raises(FileNotFoundError, match=r"got the folder .*epoch=0-bias; it holds bg_gap=0.1.ckpt: name one"):
        read_checkpoint(tmp_path / "epoch=0-bias")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in it"):
        read_checkpoint(tmp_path / "empty")


def test_networks_with_their_code_are_no_checkpoints(tmp_path):
    model, image = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), torch.rand(1, 3, 4, 4)
    torch.jit.save(torch.jit.trace(model, image), tmp_path / "script.pt")
    torch.export.save(torch.export.export(model, (image,)), tmp_path / "program.pt2")
    with pytest.raises(ValueError, match=r"script.pt holds a network with its code, .* that returns torch.jit.load"):
        read_checkpoint(tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"program.pt2 holds a network with its code, .*: save the state_dict\(\) of"):
        read_checkpoint(tmp_path / "program.pt2")
    with pytest.raises(ValueError, match="script.pt'; a file holds weights, and is a checkpoint of one of these"):
        load_model(str(tmp_path / "script.pt"))
