"""Which images two reports have in common, and whether they were made alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from probe_pages import make_report
from probe_toy import cheat, honest, toy_loader

from torch_bgdebias.probe import evaluate_background_bias
from torch_bgdebias.probe.former import compare_reports
from torch_bgdebias.probe.results.pairing import nothing_in_common

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_comparison_of_two_models() -> None:
    one = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED, name="cheat")
    two = evaluate_background_bias(honest(), toy_loader(), variants=MIXED, name="honest")
    tests = compare_reports(one, two)
    assert tests["bg_gap"].difference == pytest.approx(one.bg_gap.value - two.bg_gap.value)
    assert tests["bg_gap"].p_value < 1e-4
    assert tests["accuracy/original"].p_value == 1
    assert tests["accuracy/mixed_next"].difference == -1
    assert tests["feature_consistency/mixed_rand"].n == 40
    # another normalisation: the pictures before it are the same
    mean, std = (0.3, 0.2, 0.1), (0.5, 0.4, 0.3)
    m, s = (torch.tensor(x).reshape(3, 1, 1) for x in (mean, std))
    moved = evaluate_background_bias(
        honest(), [((x - m) / s, y, k) for x, y, k in toy_loader()], variants=MIXED, mean=mean, std=std, name="moved"
    )
    with pytest.warns(DeprecationWarning, match=r"compare_reports\(first, second\) is now compare_models"):
        assert compare_reports(one, moved)["bg_gap"].n == 40
    two.images.label = two.images.label + 1
    with pytest.raises(ValueError, match="no image that both have"):
        compare_reports(one, two)


def test_why_nothing_is_in_common_is_said_where_the_settings_tell() -> None:
    def known_by(model, what):
        report = make_report()
        return replace(report, model=model, settings={**report.settings, "images_are_known_by": what})

    first, second = known_by("before", "picture, mask and label"), known_by("after", "the batch's 'id'")
    said = nothing_in_common(first, second)
    assert "before was measured with images known by picture, mask and label, after by the batch's 'id'" in said
    said = nothing_in_common(first, replace(first, model="other"))
    assert "both know an image by picture, mask and label, so an image with another mask" in said
