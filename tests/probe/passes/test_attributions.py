"""Attributions in a measurement: ratios, heatmaps, names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from probe_toy import SIDE, ToyImages, cheat, toy_loader

from torch_bgdebias.isnet import ISNet
from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias
from torch_bgdebias.probe.results.heatmaps import unpacked_heatmap

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def left_half(model, image, target):
    """Speaks for the class on the left, against it on the right, twice as much in the first row."""
    halves = torch.ones(len(image), 1, SIDE, SIDE)
    halves[..., SIDE // 2 :] = -1
    halves[..., 0, :] *= 2
    return halves


def test_attributions_give_ratios_and_heatmaps() -> None:
    asked = []

    def noting(model, image, target):
        asked.append(target.tolist())
        return left_half(model, image, target).repeat(1, 3, 1, 1)

    report = evaluate_background_bias(
        cheat(), toy_loader(), variants=["mixed_next"], examples=3, attributions={"left": left_half, "noted": noting}
    )
    # the object's columns 3 and 4 of rows 3 to 6 are on the left, which holds 45 positive pixels and 5 doubled ones
    ratio = 4 * 2 / (45 + 2 * 5)
    for name in ("left", "noted"):
        assert report.images.scores[f"pixel_ratio/{name}"].tolist() == pytest.approx([ratio] * 40)
    assert [x for batch in asked for x in batch] == [
        i % 4 for i in range(40)
    ]  # the class predicted, which is right here
    for example in report.examples:
        heat = unpacked_heatmap(example.heatmaps["left"])
        assert heat == pytest.approx(left_half(None, [0], None)[0, 0].numpy() / 2, abs=0.01)
        assert (example.mask == ToyImages().masks[0, 0].numpy() * 255).all()
    again = BackgroundBiasReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert (again.examples[0].heatmaps["left"] == report.examples[0].heatmaps["left"]).all()
    assert (again.examples[0].mask == report.examples[0].mask).all()


@pytest.mark.parametrize("name", ["grad_cam", "kernel_shap", "lrp", "isnet"])
def test_attributions_by_name(name: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    )
    if name in ("lrp", "isnet"):
        pytest.importorskip("zennit")
    model = ISNet(net, variant="selective") if name == "isnet" else net
    report = evaluate_background_bias(
        model, toy_loader(), variants=MIXED, attributions=[name], explain="label", examples=2, max_batches=1
    )
    assert np.isfinite(report.scores[f"pixel_ratio/{name}"].mean.value)
    assert all(e.heatmaps[name].std() > 0 for e in report.examples)
    assert report.settings["attributions"] == [name]
    if name == "grad_cam":
        with pytest.raises(ValueError, match="'isnet' needs a model wrapped in ISNet, got Sequential"):
            evaluate_background_bias(net, toy_loader(), variants=[], attributions=["isnet"])
        with pytest.raises(ValueError, match="attributions: expected one of 'grad_cam'"):
            evaluate_background_bias(net, toy_loader(), variants=[], attributions=["gradcam"])
        with pytest.raises(ValueError, match=r"attributions\['flat'\]: expected \(7, 1, 10, 10\), got"):
            evaluate_background_bias(net, toy_loader(), variants=[], attributions={"flat": lambda m, x, t: x.mean(1)})
