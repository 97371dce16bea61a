"""Checkpoints as other training programs nest and name them: the right weights, or an error that names those there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from torch_bgdebias.checkpoints import NOTES, read_checkpoint


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


STATE, OTHER = network(1).state_dict(), network(2).state_dict()


def under(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def loaded(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    model = network(3)
    read_checkpoint(tmp_path / "x.pt").load_into(model)
    return model.state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"state_dict": STATE}, "epoch": 1},
        {"model": {"state_dict": under("module.")}},
        {"net": under("_orig_mod."), "acc": 93.1},
        {"params": STATE},
        {"backbone_and_head": under("module."), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        {"module": STATE, "dp_world_size": 1},
        {"n_averaged": torch.tensor(3), **under("module.")},
        {**STATE, "epoch": 3},
        {"state_dict": {**under("net."), "criterion.weight": torch.ones(3)}, "loss": torch.tensor(0.3)},
        {"state_dict": {**under("a."), **under("b.")}},  # one network under two names
        {name: value for name, value in STATE.items() if "num_batches" not in name},
    ],
)
def test_weights_are_found_where_programs_put_them(tmp_path, content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = loaded(tmp_path, content)
    for name, value in STATE.items():
        assert torch.equal(state[name], value), name


def test_two_networks_that_fit_are_not_chosen_from_by_chance(tmp_path):
    content = {"state_dict": {**under("student."), **under("teacher.", OTHER)}}
    text = r"holds several networks of this kind, student., teacher.: save one alone, \{name.removeprefix\('student.'\)"
    with pytest.raises(ValueError, match=text):
        loaded(tmp_path, content)
    with pytest.raises(ValueError, match=r"holds several state dicts, encoder, head: save one alone"):
        loaded(tmp_path, {"encoder": STATE, "head": OTHER})


@pytest.mark.parametrize("ema", ["model_ema", "state_dict_ema", "ema_weights"])
def test_averaged_weights_beside_the_models_are_spoken_of(tmp_path, ema):
    with pytest.warns(UserWarning, match=rf"x.pt holds model and {ema}: model is loaded; to have another, save it"):
        state = loaded(tmp_path, {ema: OTHER, "model": STATE})
    assert torch.equal(state["0.weight"], STATE["0.weight"])


@pytest.mark.parametrize(
    ("beside", "classes"),
    [
        ({"hyper_parameters": {"class_names": ["dog", "cat"], "lr": 0.1}}, ("dog", "cat")),
        ({"datamodule_hyper_parameters": {"data": {"class_to_idx": {"cat": 1, "dog": 0}}}}, ("dog", "cat")),
        ({"idx_to_class": {0: "dog", 1: "cat"}}, ("dog", "cat")),
        ({"classes": ["Big dog", "cat"], "hyper_parameters": {"classes": ["big_dog", "cat"]}}, ("Big dog", "cat")),
        ({"hyper_parameters": {"classes": 2}}, None),
        ({"hyper_parameters": {"classes": ["a", "b"]}, NOTES: {"classes": ["dog", "cat"]}}, ("dog", "cat")),
    ],
)
def test_names_of_outputs_are_read_from_hyperparameters(tmp_path, beside, classes):
    torch.save({"state_dict": STATE, **beside}, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt").classes == classes


def test_two_orders_of_names_are_told(tmp_path):
    torch.save(
        {"state_dict": STATE, "classes": ["a", "b"], "hyper_parameters": {"classes": ["b", "a"]}}, tmp_path / "x"
    )
    with pytest.warns(
        UserWarning, match=r"calls its outputs by classes, hyper_parameters.classes, which disagree: none"
    ):
        assert read_checkpoint(tmp_path / "x").classes is None
