"""The examples of a report: images that the other background harmed."""

from __future__ import annotations

import numpy as np
from probe_toy import cheat, toy_loader

from torch_bgdebias.probe import evaluate_background_bias


def test_examples_are_images_that_were_hurt() -> None:
    report = evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand", "mixed_next"], examples=4)
    assert len(report.examples) == 4
    for example in report.examples:
        assert example.prediction["original"] == example.label
        assert example.prediction["mixed_next"] != example.label
        assert set(example.pictures) == {"original", "mixed_rand", "mixed_next"}
        picture = example.pictures["original"]
        assert picture.shape == (10, 10, 3)
        assert picture.dtype == np.uint8
        assert picture[5, 5, 0] == round(0.9 * 255)
