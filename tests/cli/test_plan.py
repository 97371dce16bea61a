"""``bgdebias plan``: the figures of the functions, in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

from torch_bgdebias.cli import main
from torch_bgdebias.metrics import gap_power, images_for_gap


def test_the_plan_in_words_and_as_json(capsys):
    assert main(["plan", "--gap", "0.05", "--accuracy", "0.8", "--images", "200"]) == 0
    words = capsys.readouterr().out
    assert f"is shown with power 80 % by {images_for_gap(0.05, 0.8).images} images" in words
    assert f"200 images show such a gap with power {100 * gap_power(200, 0.05, 0.8):.0f} %" in words
    assert main(["plan", "--group-size", "4", "--correlation", "0.5", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["schema"] == "torch_bgdebias.plan/1"
    expected = images_for_gap(0.05, 0.8, group_size=4, correlation=0.5)
    assert plan["needed"]["gap_shown"] == {
        "images": expected.images, "groups": expected.groups, "reached": expected.reached
    }  # fmt: skip
    assert plan["power_of_images"] is None


def test_a_gap_wider_than_any_interval(capsys):
    assert main(["plan", "--images", "90", "--gap", "0.6", "--accuracy", "0.98"]) == 0
    assert "no wider than +- 10 points" in capsys.readouterr().out


def test_groups_need_their_correlation(capsys):
    assert main(["plan", "--group-size", "4"]) == 1
    assert "--group-size and --correlation: expected both or none" in capsys.readouterr().err
    for words, share in ((["--gap", "5"], "5 % is 0.05"), (["--accuracy", "80%"], "80 % is 0.8")):
        assert main(["plan", *words]) == 2
        assert f"got {words[1]}; {share}" in capsys.readouterr().err
    for odd in ("0", "-0.1", "nan", "inf", "1.5"):
        assert main(["plan", "--gap", odd]) in (1, 2)
        assert "--gap: expected a number in " in capsys.readouterr().err.replace("argument ", "")
    assert main(["plan", "--images", "99999999999"]) == 1
    assert "--images: expected at most 10,000,000, got 99,999,999,999" in capsys.readouterr().err
    assert main(["plan", "--gap", "0.9"]) == 1
    assert "--gap: expected a number in (0, accuracy]" in capsys.readouterr().err


def test_help_does_without_torch():
    code = (
        "import sys; from torch_bgdebias.cli import main\n"
        "for name in ('plan', 'certify'): main([name, '--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_groups_are_counted_beside_images(capsys):
    assert main(["plan", "--group-size", "2", "--correlation", "0.5"]) == 0
    expected = images_for_gap(0.05, 0.8, group_size=2, correlation=0.5)
    assert f"{expected.images:,} images in {expected.groups:,} groups of 2" in capsys.readouterr().out
    assert main(["plan"]) == 0
    assert "groups of" not in capsys.readouterr().out
