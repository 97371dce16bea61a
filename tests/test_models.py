from __future__ import annotations

import copy
import threading
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

from torch_bgdebias import models

runs_eagerly = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 looks into no compiled module"
)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))


def state_of(model: nn.Module) -> tuple[object, ...]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    return hooks, [m.training for m in model.modules()], [id(p) for p in model.parameters()], [*vars(model)]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: torchvision.models.resnet18(num_classes=5), "fc"),
        (lambda: torchvision.models.vgg11(num_classes=5, init_weights=False), "classifier.6"),
        (lambda: torchvision.models.mobilenet_v3_small(num_classes=5), "classifier.3"),
        (lambda: torchvision.models.vit_b_16(num_classes=5, image_size=32), "heads.head"),
        (lambda: timm.create_model("resnet10t", num_classes=5), "fc"),
        (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5), "head"),
        (lambda: timm.create_model("convnext_atto", num_classes=5), "head.fc"),
    ],
)
def test_find_head(model, name):
    head_name, layer = models.find_head(model())
    assert head_name == name
    assert layer.out_features == 5


def test_head_that_nobody_can_know():
    ambiguous = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    with pytest.raises(LookupError, match=r"more than one.*aux1\.fc2.*fc \(1024 -> 1000\)"):
        models.find_head(ambiguous)
    with pytest.raises(LookupError, match="no nn.Linear"):
        models.find_head(torchvision.models.squeezenet1_1())
    with pytest.raises(LookupError, match=r"no layer with 3 outputs.*4 \(4 -> 7\)"):
        models.find_head(small(), num_classes=3)


def test_tap_reads_and_leaves_nothing_behind():
    model = small()
    before = state_of(model)
    image = torch.rand(2, 3, 8, 8)
    with models.tap(model, ["4", "1"]) as seen:
        logits = model(image)
    assert torch.equal(seen.outputs["4"][0], logits)
    assert seen.inputs["4"][0].requires_grad
    assert seen.inputs["4"][0].shape == (2, 4)
    assert state_of(model) == before
    with pytest.raises(RuntimeError), models.tap(model, ["0", "4"]):
        model(torch.rand(2, 5, 8, 8))
    assert state_of(model) == before
    with pytest.raises(LookupError, match="layer '44' is not in Sequential; near names: 4"), models.tap(model, ["44"]):
        raise AssertionError("the block must not run")
    assert state_of(model) == before


def test_a_tap_hears_its_own_thread_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    image = torch.rand(3, 2)
    with models.tap(model, ["1"]) as seen:
        other = threading.Thread(target=lambda: model(torch.rand(5, 2)))
        other.start()
        other.join()
        expected = model(image)
    assert len(seen.inputs["1"]) == 1
    assert torch.equal(*seen.outputs["1"], expected)


def test_a_layer_that_is_like_no_other_is_told_the_last_five():
    model = nn.Sequential(*[nn.ReLU() for _ in range(9)])
    with pytest.raises(LookupError, match=r"near names: 4, 5, 6, 7, 8$"), models.tap(model, ["head"]):
        raise AssertionError("the block must not run")
    alike = nn.ModuleDict({f"block{i}": nn.ReLU() for i in range(9)})
    with pytest.raises(LookupError) as error:
        models.get_layer(alike, "block")
    assert str(error.value).rpartition("near names: ")[2].count("block") == 5


@runs_eagerly
def test_tap_of_a_compiled_model_warns_and_works():
    inner = small()
    model = nn.Sequential(torch.compile(inner, backend="eager"))
    assert models.original_module(model[0]) is inner
    model(torch.rand(2, 3, 8, 8))
    with pytest.warns(UserWarning, match="compiled"), models.tap(model, ["0.4"]) as seen:
        model(torch.rand(2, 3, 8, 8))
    assert len(seen.inputs["0.4"]) == 1


def test_layer_is_what_the_model_calls_under_that_name():
    inner = small()
    compiled = torch.compile(inner, backend="eager")
    model = nn.Sequential()
    model.net, model.again = compiled, compiled
    assert models.get_layer(model, "net") is compiled
    assert models.original_module(models.get_layer(model, "net")) is inner
    assert models.get_layer(model, "net._orig_mod") is inner
    assert models.get_layer(model, "again") is compiled  # shared modules have several names
    for name in ("net.4", "again.4", "net._orig_mod.4"):
        assert models.get_layer(model, name) is inner[4]
    assert models.get_layer(compiled, "4") is inner[4]
    assert models.get_layer(inner, "_orig_mod.4") is inner[4]
    for name in ("", "nett", "net.5"):
        with pytest.raises(LookupError, match=f"layer '{name}' is not in Sequential; near names: "):
            models.get_layer(model, name)


def test_an_older_torch_says_what_to_pass(monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    with pytest.raises(RuntimeError, match="expected torch 2.6 or newer to look into a compiled module, got torch"):
        models.run_eagerly()


@runs_eagerly
def test_tap_of_a_layer_that_is_compiled_itself():
    model = small()
    expected = model(torch.ones(2, 3, 8, 8))
    model[4] = torch.compile(model[4], backend="eager")
    with pytest.warns(UserWarning, match="compiled"), models.tap(model, ["4", "3"]) as seen:
        model(torch.ones(2, 3, 8, 8))
    assert torch.equal(seen.outputs["4"][0], expected)
    assert torch.equal(seen.inputs["4"][0], seen.outputs["3"][0])


def test_modes_come_back_one_by_one():
    model = small()
    model.train()
    model[1].eval()
    before = [m.training for m in model.modules()]
    with pytest.raises(ZeroDivisionError), models.eval_mode(model):
        assert not any(m.training for m in model.modules())
        _ = 1 / 0
    assert [m.training for m in model.modules()] == before


def test_logits_of_one_place_an_image_are_a_table():
    logits = torch.rand(4, 3)
    assert torch.equal(models.logits_of(logits[:, :, None, None]), logits)
    assert torch.equal(models.logits_of({"logits": logits[:, :, None, None, None]}), logits)
    for other in (torch.rand(4, 3, 1, 2), torch.rand(4, 1, 3), torch.rand(4)):
        assert models.logits_of(other) is other


def test_logits_of():
    logits = torch.rand(2, 3)
    assert models.logits_of(logits) is logits
    assert models.logits_of({"logits": logits}) is logits
    assert models.logits_of(SimpleNamespace(logits=logits)) is logits
    assert models.logits_of((None, logits), 1) is logits
    assert models.logits_of({"out": [logits]}, lambda out: out["out"][0]) is logits
    with pytest.raises(TypeError, match=r"no logits at None, it is \['scores'\]"):
        models.logits_of({"scores": logits})
    with pytest.raises(TypeError, match="no logits at 2"):
        models.logits_of((logits, logits), 2)


def test_original_module_sees_through_wrappers():
    inner = small()
    assert models.original_module(nn.DataParallel(inner)) is inner
    assert models.original_module(torch.compile(nn.DataParallel(inner), backend="eager")) is inner
    assert models.original_module(copy.deepcopy(inner)) is not inner


def test_layers_that_are_copied_to_several_devices_are_refused_by_name():
    wrapped = nn.DataParallel(small())
    models.check_one_device(nn.Sequential(wrapped), what="reading")  # without devices it calls the module itself
    wrapped.device_ids = [0, 1]
    advice = r"copies of its layers on 2 devices .* and reading needs the layers themselves: pass .*\(.module\)"
    with pytest.raises(TypeError, match="the model is an nn.DataParallel, which runs " + advice):
        models.check_one_device(wrapped, what="reading")
    with pytest.raises(TypeError, match="'1' of Sequential is an nn.DataParallel, which runs " + advice):
        models.check_one_device(nn.Sequential(nn.ReLU(), wrapped), what="reading")
    models.check_one_device(wrapped.module, what="reading")


def test_a_layer_that_is_no_name_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(TypeError, match="layer: expected the name of a layer, got int 1, as model.named_modules"):
        models.get_layer(model, 1)
    with pytest.raises(TypeError, match="layer: expected the name of a layer, got ReLU .*; its name is '1'"):
        models.get_layer(model, model[1])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_models_without_a_mode_of_their_own():
    """A frozen script has none, and an exported program cannot change its own."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with models.eval_mode(torch.jit.freeze(torch.jit.script(model))):
        pass
    exported = torch.export.export(model, (torch.rand(2, 3, 8, 8),)).module()
    text = "model: GraphModule cannot be put into evaluation mode: .* An exported"
    with pytest.raises(TypeError, match=text), models.eval_mode(exported):
        pass
