"""``bgdebias certify`` from two folders to a page."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from torch_bgdebias.cli import main

WORDS = ["certify", "--data", "data", "--backgrounds", "walls", "--size", "12", "--device", "cpu"]


def write_walls(root, n: int = 3) -> None:
    (root / "walls").mkdir()
    for i in range(n):
        Image.fromarray(np.full((12, 12, 3), [200, 10, 10], np.uint8)).save(root / f"walls/{i}.png")


def test_a_model_that_reads_the_background_is_right_where_the_background_says_so(place, capsys):
    write_walls(place)
    assert main([*WORDS, "--model", "trial_nets:Corner", "--per-object", "4", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["certified"]["accuracy"] == 3 / 9, "all walls are red, which is the cats' colour"
    assert printed["per_class"]["cat"]["accuracy"] == 1
    assert printed["right_on"] == [6, 0, 0, 0, 3]
    assert "classified right by trial_nets:Corner " in printed["sentence"]
    assert "drawn from walls" in printed["sentence"]
    page = (place / "bgdebias-certify/certificate.html").read_text(encoding="utf-8")
    assert "covers nothing else" in page
    assert "Guessing among 3 classes gets 33.3 %: this certificate promises no more than that." in page


def test_results_are_kept_and_errors_are_one_line(place, capsys):
    write_walls(place)
    words = [*WORDS, "--model", "trial_nets:Corner"]
    assert main(words) == 0
    assert "It covers nothing else" in capsys.readouterr().out
    assert main(words) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--once"]) == 1
    assert (
        "--once: expected a background for each draw, one an object and round, got 3 for at least"
        in capsys.readouterr().err
    )
    assert main([*words, "--overwrite", "--backgrounds", "nowhere"]) == 1
    assert "--backgrounds: expected a file or folder, found nothing at nowhere" in capsys.readouterr().err
