"""`bgdebias probe --mask-quality`: a section of the page, a table, and figures as JSON."""

from __future__ import annotations

import json

from probe_command import command


def test_how_good_the_masks_must_be(place, capsys):
    words = ("--model", "trial_nets:Corner", "--attributions", "", "--variants", "mixed_same,mixed_rand")
    assert command(*words, "--mask-quality", 0.9) == 0
    printed = capsys.readouterr().out
    assert "as given" in printed
    assert "50 % of another image" in printed
    assert "With masks of this quality (overlap 0.90) the BG-Gap" in printed
    assert "How good must the masks be?" in (place / "bgdebias-probe/report.html").read_text()
    assert command(*words, "--mask-quality", 0.0, "--json", "--adversarial", 3, "--overwrite") == 0
    masks = json.loads(capsys.readouterr().out)["masks"]
    assert len(masks["rows"]) == 14
    assert masks["rows"][0]["figures"].keys() == {"bg_gap", "adversarial_accuracy"}
    assert "cannot be trusted" in masks["sentence"]
