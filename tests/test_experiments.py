"""The lines that experiments have kept: each says how it came about, and the tables are made of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from torch_bgdebias.data import IMAGENET9_RANGES
from torch_bgdebias.masks import mask_maker
from torch_bgdebias.named_models import LoadedModel

ROOT = Path(__file__).resolve().parents[1] / "experiments"
#: by folder, what a line is called in the table that is made of it
TABLES = {
    "clad": lambda run, lines: run.tables(lines),
    "masks": lambda run, lines: run.tables(lines),
    "concepts": lambda run, lines: run.tables(lines),
    "sav": lambda run, lines: run.show(lines),
    "volumes": lambda run, lines: run.tables(lines),
}


def lines_of(topic: str) -> list[dict]:
    path = ROOT / topic / "results.jsonl"
    if not path.exists():
        pytest.skip(f"no line has been kept of experiments/{topic}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("topic", [*TABLES, "isnet"])
def test_lines_say_how_they_came_about(topic):
    for line in lines_of(topic):
        assert "seed" in line["settings"]
        assert line["versions"].keys() >= {"torch", "numpy", "torch_bgdebias"}
        assert line["machine"]["processor"]
        assert line["machine"]["commit"]
        assert len(line["date"]) == len("2026-11-28")


@pytest.mark.parametrize("topic", TABLES)
def test_every_line_is_in_a_table(topic):
    lines = lines_of(topic)
    text = TABLES[topic](importlib.import_module(f"experiments.{topic}.run"), lines)
    assert text.count("\n| --- |") + text.count("\n| --- ") >= 1
    for line in lines:
        assert line["machine"]["processor"] in text
    if topic == "clad":
        assert all(f"| {line['mixed_rand']:.1f} " in text for line in lines if [*map(key, lines)].count(key(line)) == 1)


#: table of `experiments.intervals.table` -> pages whose rows are taken from it
INTERVALS = {
    "simulated": ("docs/metrics.md", "docs/targets.md"),
    "performance": ("docs/performance.md",),
    "certificates": ("docs/certificate.md",),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_tables_of_intervals_are_the_printed_ones(name):
    module = importlib.import_module("experiments.intervals.table")
    file, lay_out = module.TABLES[name]
    rows = lay_out(module.read_lines([ROOT / "intervals" / file])).splitlines()[2:]
    assert all(row in (ROOT / "intervals/README.md").read_text() for row in rows)
    for page in INTERVALS[name]:
        section = (ROOT.parent / page).read_text().partition("## How well")[2].partition("\n## ")[0]
        quoted = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ---")][1:]
        assert quoted
        assert set(quoted) <= set(rows)


def test_what_a_filter_takes_out_is_the_printed_table():
    module = importlib.import_module("experiments.wordnet.screening")
    printed = module.tables(module.read_lines([ROOT / "wordnet/screening.jsonl"]))
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 11
    for page in (ROOT / "wordnet/README.md", ROOT.parent / "docs/backgrounds.md"):
        assert "\n".join(rows) in page.read_text()


def test_the_volumes_table_is_the_printed_one():
    printed = importlib.import_module("experiments.volumes.run").tables(lines_of("volumes"))
    rows = "\n".join(line for line in printed.splitlines() if line.startswith("|"))
    assert all(rows in page.read_text() for page in (ROOT / "volumes/README.md", ROOT.parent / "docs/volumes.md"))


@pytest.mark.parametrize(("correlation", "least", "most"), [(1.0, 0.9, 1.0), (0.0, 0.2, 0.5)])
def test_the_waves_behind_a_volume_tell_its_class_where_they_should(correlation, least, most):
    draw = importlib.import_module("experiments.volumes.run").draw
    volume, label, mask = draw(300, correlation, torch.Generator().manual_seed(0))
    assert volume.shape == (300, 1, 12, 24, 24)
    assert (mask.flatten(1).sum(1) > 0).all()
    along = torch.stack([(volume * (1 - mask)).var(axis + 2).mean((1, 2, 3)) for axis in range(3)], 1)
    share = float((along.argmax(1) == label).float().mean())
    assert least <= share <= most


def test_every_class_of_signs_has_a_row():
    lines = lines_of("sav")
    text = importlib.import_module("experiments.sav.run").show(lines, by_class=True)
    settings = {json.dumps({k: v for k, v in line["settings"].items() if k != "training"}) for line in lines}
    assert len(settings) == 2  # two networks
    assert all(text.count(f"| {name} |") == len(settings) for name in lines[0]["classes"])


def test_a_small_convnext_takes_signs():
    pytest.importorskip("timm")
    network = importlib.import_module("experiments.sav.settings").convnext(12).eval()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 12)


def key(line: dict) -> dict:
    """What makes a row of a table: all settings but the seed."""
    return {name: value for name, value in line["settings"].items() if name != "seed"}


def test_isnets_table(capsys):
    lines = lines_of("isnet")
    run = importlib.import_module("experiments.isnet.run")
    run.table(run.arguments(["table"]))
    printed = capsys.readouterr().out
    for line in lines:
        if [*map(key, lines)].count(key(line)) == 1:
            assert all(f"| {value:.1f} " in printed for value in line["accuracy"].values())


def write_imagenet9(root: Path, pictures: int = 6) -> None:
    """The release's layout in small: nine classes told apart by the object's colour alone."""
    colours = [(r, g, b) for r in (40, 140, 240) for g in (40, 140, 240) for b in (140,)]
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:12, 4:12] = True
    for split in ("train", "val"):
        for label, name in enumerate(IMAGENET9_RANGES):
            folders = [root / kind / split / f"{label:02d}_{name}" for kind in ("original", "mixed_rand", "fg_mask")]
            for folder in folders:
                folder.mkdir(parents=True)
            for i in range(pictures):
                pixels = np.random.default_rng([label, i, len(split)]).integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[mask] = colours[label]
                Image.fromarray(pixels).save(folders[0] / f"n{label}_{i}.JPEG", quality=95)
                Image.fromarray(pixels).save(folders[1] / f"fg_n{label}_{i}_bg_n9_{i}.JPEG", quality=95)
                np.save(folders[2] / f"n{label}_{i}.npy", mask)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_new_last_layer_on_a_small_imagenet9(mixed, tmp_path, monkeypatch):
    write_imagenet9(tmp_path)
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 64, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    network = nn.Sequential(*body, nn.Linear(64, 1000))
    run = importlib.import_module("experiments.imagenet9.run")
    monkeypatch.setattr(run, "load_model", lambda *name, **options: LoadedModel(network))
    places = ["--train", str(tmp_path), "--test", str(tmp_path), "--out", str(tmp_path / "lines.jsonl")]
    line = run.run(run.arguments(["fit", *places, "--size", "16", *["--mixed"] * mixed]))
    assert line["before"].keys() == line["after"].keys() == {"original", "mixed_rand"}  # what the folder has
    assert line["images"] == 54 * (1 + mixed)
    assert line["before"]["original"] < 30
    assert line["after"]["original"] > 90
    table = run.table(run.read_lines([tmp_path / "lines.jsonl"]))
    assert f"| timm:resnet50, after | {line['after']['original']:.1f} | - |" in table


def arena_line(method: str, seed: int, own: float, random: float, cost: float) -> dict:
    scores = {"own": own, "random": random, "photographs": random + 5, "objects": random + 6}
    return {"method": method, "seed": seed, "last": scores, "cpu_seconds": cost}


def test_arenas_table_and_front(tmp_path):
    run = importlib.import_module("experiments.arena.run")
    lines = [
        arena_line(*row)
        for row in (("plain", 0, 90, 30, 10), ("plain", 1, 94, 34, 12), ("DFR", 0, 60, 29, 5), ("CLAD+", 0, 85, 62, 40))
    ]
    rows = run.table(lines).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| CLAD+", "| plain", "| DFR"]
    assert rows[1] == "| plain | 92.0 ± 2.8 | 32.0 ± 2.8 | 37.0 ± 2.8 | 38.0 ± 2.8 | 2 | 11 |"
    points = {method: (row["own"][0], row["random"][0]) for method, row in run.means(lines).items()}
    assert run.best(points, least_first=False) == ["plain", "CLAD+"]
    costs = {method: (row["cpu_seconds"][0], row["random"][0]) for method, row in run.means(lines).items()}
    assert run.best(costs, least_first=True) == ["plain", "DFR", "CLAD+"]
    assert run.plot(lines, tmp_path / "arena.png").stat().st_size > 10_000


def test_arenas_rank_correlations():
    run = importlib.import_module("experiments.arena.run")
    lines = []
    for i in range(5):
        ratios = {"grad_cam": 20.0 + i, "lrp": 30.0 - i, "kernel_shap": 5.0, "object": 18.0}
        lines.append({**arena_line(str(i), 0, 90.0, 30.0 + 10 * i, 1.0), "pixel_ratio": ratios})
    with pytest.warns(stats.ConstantInputWarning):
        text = run.ranks(lines)
    assert "5 methods; objects cover 18.0 % of the images." in text
    assert "- grad_cam: pixel ratio 20.0 to 24.0 %; rank correlation with gap -1.00 (p 0.000), random +1.00" in text
    assert "- lrp: pixel ratio 26.0 to 30.0 %; rank correlation with gap +1.00" in text
    assert "- kernel_shap: pixel ratio 5.0 to 5.0 %; rank correlation with gap +nan" in text
    assert run.ranks(lines[:3]) == ""


def test_training_masks_that_a_maker_made():
    making = importlib.import_module("experiments.photos.made")
    settings = importlib.import_module("experiments.photos.settings")
    boxes = mask_maker("boxes:true")
    image, label, truth = torch.rand(20, 3, 12, 12), torch.arange(20) % 2, torch.zeros(20, 1, 12, 12)
    truth[:, :, 2:8, 3:9] = 1
    truth[:, :, 2, 3] = 0  # no corner: of the box 35 of 36 pixels are object
    tests = {"own": (image, label, truth)}
    data = settings.Photographs(torch.utils.data.TensorDataset(image, label, truth), label, tests)
    changed, quality = making.with_made_masks(data, boxes, boxes=True)
    assert quality == pytest.approx(35 / 36)
    assert torch.equal(changed.train.tensors[0], image)
    assert changed.train.tensors[2].sum() == 20 * 36
    assert torch.equal(changed.tests["own"][2], truth)


@pytest.fixture
def classifier_args(monkeypatch):
    """A small network in the place of the pretrained one."""
    photos = importlib.import_module("experiments.photos.run")

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classifier = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)

        def forward_features(self, image):
            return self.body(image).relu()

        def forward(self, image):
            return self.classifier(self.forward_features(image).mean((2, 3)))

    monkeypatch.setattr(photos, "network", lambda classes, pretrained: Small())
    return photos.arguments(["train", "--voc", ".", "--scenes", "."])


def test_rivals_with_masks_see_the_object_alone(classifier_args):
    rivals = importlib.import_module("experiments.arena.rivals")
    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    elsewhere = torch.where(mask > 0, image, torch.rand(2, 3, 8, 8))
    for kind, equal in ((rivals.MaskedImages, True), (rivals.MaskedPooling, False)):
        module = kind(classifier_args).eval()
        before, after = module.answer(image, mask), module.answer(elsewhere, mask)
        assert torch.equal(before, after) == equal  # at its border a feature has seen what lies outside
    plain = rivals.RightReasons(classifier_args)
    loss = plain.training_step((image, torch.tensor([0, 1]), mask), 0)
    torch.testing.assert_close(loss, 2 * torch.nn.functional.cross_entropy(plain(image), torch.tensor([0, 1])))


def test_group_dro_turns_to_the_worst_group(classifier_args):
    rivals = importlib.import_module("experiments.arena.rivals")
    torch.manual_seed(0)
    module = rivals.GroupDRO(classifier_args, step=1.0)
    image, label = torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])
    group = torch.tensor([0, 0, 9, 9])
    with torch.no_grad():
        module.net.classifier.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 0]))  # class 0 is right, class 1 is not
    module.training_step((image, label, None, group), 0)
    assert module.share[9] > 100 * module.share[0]
    torch.testing.assert_close(module.share.sum(), torch.tensor(1.0))
