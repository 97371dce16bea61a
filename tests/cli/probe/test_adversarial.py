"""Adversarial backgrounds by the command line."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from probe_command import command


def test_adversarial_backgrounds(place, capsys):
    """The corner's class is the background's, so any other class's background fools it."""
    words = ("--model", "trial_nets:Corner", "--attributions", "", "--variants", "no_fg", "--json", "--adversarial")
    assert command(*words, 100) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["adversarial_accuracy"]["mean"]["value"] == 0
    assert printed["notes"]["adversarial backgrounds"] == "9 (100 asked for)"
    assert command(*words, 1) == 0  # the first picture's alone, a cat's
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["adversarial_accuracy"]["mean"]["value"] == pytest.approx(1 / 3)
    for mask in (place / "data/masks").rglob("*.png"):
        Image.new("L", (12, 12), 255).save(mask)
    assert command(*words, 5) == 1
    assert "cover 100% of their pictures on average and touch every border in 9 of 9" in capsys.readouterr().err
    assert command(*words, 5, "--foreground", 255) == 1  # they are what is meant
    assert "none of 5 pictures has a background beside its foreground" in capsys.readouterr().err
