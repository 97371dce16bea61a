"""Unmodified models of torchvision and timm: a dozen here, every one with --runslow (an hour and much memory)."""

from __future__ import annotations

import pytest

from experiments.lrp_zoo import run as zoo

pytest.importorskip("torchvision")
pytest.importorskip("timm")


QUICK = [
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
    "timm/convnextv2_atto",
    "timm/ghostnet_050",
    "timm/levit_128s",
    "timm/mobilevit_xxs",
    "timm/regnety_002",
    "timm/resnest14d",
    "timm/vit_tiny_patch16_224",
    "timm/xcit_nano_12_p16_224",
    "timm/eca_nfnet_l0",
]
CHAOTIC = ["timm/efficientvit_b0"]  # with random weights finite differences of its plain logits fail too
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in zoo.names()]


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_difference(name):
    row = zoo.examine(name, timed=False)
    assert zoo.status(row) == "exact" or (name in CHAOTIC and zoo.status(row).startswith("not measurable")), row
