"""The summary in words."""

from __future__ import annotations

from probe_toy import cheat, toy_loader

from torch_bgdebias.probe import evaluate_background_bias


def test_summary_says_the_numbers() -> None:
    text = evaluate_background_bias(cheat(), toy_loader(), name="cheat").summary()
    for part in ("cheat: background bias (40 images, 4 classes", "original", "accuracy 100.0 [92.8, 100.0]", "BG-Gap"):
        assert part in text
