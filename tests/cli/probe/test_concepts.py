"""`bgdebias probe --concepts`: a folder of backgrounds in, the backgrounds that hide a concept out."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.concepts import ConceptTransfer
from torch_bgdebias.probe import BackgroundBiasReport

NETS = """
from torch import nn

class See(nn.Module):
    def __init__(self):
        super().__init__()
        self.pixels, self.head = nn.Identity(), nn.Linear(3, 2)
    def forward(self, x):
        return self.head(self.pixels(x).mean((2, 3)))

class Grey(See):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Red apples and green leaves on grey, eight of each to fit and eight to test; red and grey backgrounds."""
    rng = np.random.default_rng(0)

    def save(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for label, name in enumerate(("apple", "leaf")):
        for i in range(16):
            pixels = rng.integers(90, 110, (12, 12, 3), dtype=np.uint8)
            mask = np.zeros((12, 12), np.uint8)
            mask[2 : 8 + i % 3, 3:9] = 255
            pixels[mask > 0] = (20, 20, 20)
            pixels[mask > 0, label] = 220
            save(tmp_path / f"data/images/{name}/{i}.png", pixels)
            save(tmp_path / f"data/masks/{name}/{i}.png", mask)
    for name, colour in (("red", (230, 20, 20)), ("grey", (100, 100, 100))):
        for i in range(3):
            save(tmp_path / f"places/{name}/{i}.png", np.full((12, 12, 3), colour, np.uint8))
    (tmp_path / "concept_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("concept_nets", None)


def command(*words, model="See"):
    fixed = (
        "--model",
        f"concept_nets:{model}",
        "--data",
        "data",
        "--size",
        "12",
        "--device",
        "cpu",
        "--attributions",
        "",
    )
    return cli.main(["probe", *fixed, "--variants", "mixed_rand", "--concept-layers", "pixels", *map(str, words)])


def test_apples_are_lost_on_red(place, capsys):
    assert command("--concepts", "places", "--json", "--out", "out") == 0
    printed = json.loads(capsys.readouterr().out)
    pairs = [(x["concept"], x["background"]) for x in printed["biased_concepts"]]
    assert pairs[0] == ("apple", "red")
    assert "grey" not in [background for _, background in pairs]
    result = ConceptTransfer.from_json("out/concepts.json")
    assert result.categories == ("original", "grey", "red")
    assert result.conditions == ("original", "pasted")
    assert result.table("pixels")[0, 0] > 0.9
    page = (place / "out/report.html").read_text(encoding="utf-8")
    assert "Concepts on other backgrounds" in page
    assert f"pixels, Net2Vec: {len(pairs)} of 4 pairs lose" in page
    pytest.importorskip("matplotlib")
    assert (place / "out/concepts-pixels.png").stat().st_size > 1000


def test_the_report_keeps_them(place, capsys):
    assert command("--concepts", "places", "--concept-method", "loce", "--out", "out") == 0
    (table,) = BackgroundBiasReport.from_json("out/report.json").concepts
    assert (table.layer, table.method) == ("pixels", "loce")
    assert [fit.condition for fit in table.fits] == ["original", "pasted"]
    result = ConceptTransfer.from_json("out/concepts.json")
    assert result.methods == ("loce",)
    np.testing.assert_allclose([r.iou.value for r in table.rows], result.table("pixels", "loce")[:, 1:].ravel())
    pasted = table.fits[1]
    np.testing.assert_allclose(list(pasted.cosine.values()), result.cosine_similarity("pixels", "loce")[:, 0, 1])
    printed = capsys.readouterr().out
    assert "concepts in pixels (loce): IoU" in printed
    own = (place / "out/report.html").read_text(encoding="utf-8")
    assert cli.main(["report", "out/report.json", "out/report.json", "--out", "again.html"]) == 0
    assert table.summary() in capsys.readouterr().out
    page = (place / "again.html").read_text(encoding="utf-8")
    rows = [row for row in own.splitlines() if "<th scope='col'>Concept</th>" in row]
    assert rows
    assert all(page.count(row) == 2 for row in rows)
    assert cli.main(["report", "out/report.json", "--out", "again.html", "--overwrite", "--json"]) == 0
    biased_pairs = json.loads(capsys.readouterr().out)["models"][0]["biased_concepts"]
    assert [(x["concept"], x["background"]) for x in biased_pairs] == [(r.concept, r.category) for r in table.biased]


def test_grey_pictures_get_grey_backgrounds(place):
    assert command("--channels", 1, "--concepts", "places", "--out", "out", model="Grey") == 0
    assert ConceptTransfer.from_json("out/concepts.json").vectors["pixels"].shape[-1] == 1


def test_backgrounds_without_categories_are_named(place, capsys):
    assert command("--concepts", "places/red", "--out", "out") == 1
    assert "--concepts: expected a folder of pictures a category in places/red, got" in capsys.readouterr().err
