"""The callback's units: mean and std of whoever prepared the images; names of checkpoints that make folders."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from torch_bgdebias.probe import EvaluationSettings
from torch_bgdebias.probe.callback_settings import in_unit_range, slash_in_names, with_known_units

WANTED = Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD)


def test_mean_and_std_are_those_of_whoever_prepared_the_images():
    data, module = SimpleNamespace(preprocessing=WANTED), SimpleNamespace(preprocessing=Preprocessing(8))
    assert with_known_units(EvaluationSettings(), None, module).mean is None  # which says nothing of them
    assert with_known_units(EvaluationSettings(), data, module).mean == IMAGENET_MEAN
    assert with_known_units(EvaluationSettings(), module, data).std == IMAGENET_STD
    own = EvaluationSettings(mean=[0.5] * 3, std=[0.5] * 3)
    assert with_known_units(own, data) is own
    inside = EvaluationSettings(preprocess=WANTED)
    assert with_known_units(inside, data) is inside
    assert with_known_units(EvaluationSettings(), SimpleNamespace(preprocessing="mine")).mean is None


def test_a_slash_in_a_checkpoint_s_name_is_named():
    keep = SimpleNamespace(filename="{epoch}-{bias/bg_gap:.3f}", auto_insert_metric_name=True)
    assert "makes a folder of every checkpoint" in slash_in_names([keep], "bias")
    assert slash_in_names([keep], "bias_2") == ""
    keep.auto_insert_metric_name = False
    assert slash_in_names([keep, SimpleNamespace(filename=None), object()], "bias") == ""


def test_pixels_of_files_are_told_from_normalised_ones():
    image = torch.rand(2, 3, 4, 4)
    assert in_unit_range(image)
    assert not in_unit_range(WANTED.normalise(image))
    assert not in_unit_range(image * 255)
