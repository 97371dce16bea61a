"""``bgdebias demo``: a whole small run, its files, its data, its errors."""

from __future__ import annotations

import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.cli.demo import data as _demo_data, running, training
from torch_bgdebias.cli.demo.results import SCHEMA
from torch_bgdebias.cli.demo.running import CURVES
from torch_bgdebias.data import MaskedTensors
from torch_bgdebias.names import DEMO_METHODS
from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.swap import BackgroundBank

SMALL = ["--samples", "96", "--epochs", "1", "--size", "16"]


def write_objects(root: Path, classes: int = 3, each: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        for kind in ("images", "masks"):
            (root / kind / f"class{label}").mkdir(parents=True, exist_ok=True)
        for i in range(each):
            image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            mask = np.zeros((20, 30), np.uint8)
            mask[5 : 9 + label, 10:16] = 255
            Image.fromarray(image).save(root / "images" / f"class{label}" / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / f"class{label}" / f"{i}.png")
    return root


def write_scenes(root: Path, counts: dict[str, int]) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (24, 20), (20 * number + i, 80, 200 - 20 * number)).save(root / name / f"{i}.png")
    return root


def write_mnist(root: Path, each: int = 6) -> Path:
    root.mkdir()
    labels = np.repeat(np.arange(10, dtype=np.uint8), each)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 4:24, 10:18] = 200
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (root / f"t10k-{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return root


def error_of(argv: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert cli.main(["demo", *argv]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("demo")
    assert cli.main(["demo", "--out", str(out), "--methods", "baseline,swap,clad,clad+", *SMALL]) == 0
    return out, json.loads((out / "demo.json").read_text(encoding="utf-8"))


def test_files(small_run: tuple[Path, dict[str, Any]]) -> None:
    out, result = small_run
    names = {"report.html", "demo.json", *(f"report-{m}.json" for m in DEMO_METHODS)}
    assert {p.name for p in out.iterdir()} == names
    assert {Path(p).name for p in result["files"].values()} == names
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("Class by class", "The same objects in front of other scenes", "During training", "CLAD+"):
        assert text in page
    assert page.count("data:image/png;base64,") >= 30


def test_result_is_versioned_and_agrees_with_the_reports(small_run: tuple[Path, dict[str, Any]]) -> None:
    out, result = small_run
    assert result["schema"] == SCHEMA == "torch_bgdebias.demo/1"
    assert set(result) == {"schema", "arguments", "data", "methods", "files", "seconds"}
    assert [m["name"] for m in result["methods"]] == list(DEMO_METHODS)
    assert result["arguments"]["samples"] == 96
    for method in result["methods"]:
        report = BackgroundBiasReport.from_json(out / f"report-{method['name']}.json")
        assert method["label"] == report.model
        assert report.bg_gap is not None
        assert method["bg_gap"]["value"] == pytest.approx(report.bg_gap.value)
        assert method["variants"]["mixed_rand"]["accuracy"]["n"] == len(report.images)
        assert {len(v) for v in method["curves"].values()} == {1}
        assert set(method["curves"]) == {"loss", *CURVES}


def test_training_and_test_share_no_object_and_no_scene(small_run: tuple[Path, dict[str, Any]]) -> None:
    counts = small_run[1]["data"]["counts"]
    assert counts["test_scenes"] == 240
    assert counts["training_scenes"] == 960
    labels = torch.arange(3).repeat_interleave(10)
    learn, test = _demo_data.split(labels, 0.2, torch.Generator().manual_seed(0), what="x", names="abc")
    assert sorted([*learn.tolist(), *test.tolist()]) == list(range(30))
    assert torch.bincount(labels[test]).tolist() == [2, 2, 2]


def test_the_same_seed_gives_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    folders = ["--foregrounds", str(objects), "--backgrounds", str(scenes)]
    results = []
    for turn, seed in enumerate(("0", "0", "1")):
        torch.manual_seed(turn)  # the global generator must not matter
        argv = ["--out", str(tmp_path / f"{turn}"), *folders, "--json", "--seed", seed]
        assert cli.main(["demo", *argv, "--samples", "64", "--epochs", "2", "--size", "16"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    first, again, other = ([(m["curves"], m["bg_gap"], m["per_class"]) for m in r["methods"]] for r in results)
    assert first == again
    assert first != other


def test_json_goes_to_stdout_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "swap", "--json"]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv, *SMALL]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))
    assert captured.err == ""


def test_mnist_files_are_foregrounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--foregrounds", str(write_mnist(tmp_path / "mnist")), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    result = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))
    assert result["data"]["classes"] == [str(i) for i in range(10)]
    assert result["data"]["counts"]["test_objects"] == 10
    assert "baseline" in capsys.readouterr().out


def test_the_most_populated_categories_are_taken_in_the_order_of_their_names() -> None:
    scenes = _demo_data.Scenes(
        torch.zeros(14, 3, 4, 4),
        torch.tensor([0] * 2 + [1] * 5 + [2] * 3 + [3] * 4),
        ("few", "most", "some", "many"),
        "",
    )
    notes: list[str] = []
    labels, categories = _demo_data._pair(scenes, "xyz", notes)
    assert categories == ("most", "some", "many")
    assert labels.tolist() == [-1] * 2 + [0] * 5 + [1] * 3 + [2] * 4
    assert notes == []


def test_fewer_categories_than_classes_are_divided_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o", classes=3), write_scenes(tmp_path / "s", {"a": 4, "b": 9})
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    assert "3 classes but only 2 categories" in capsys.readouterr().err
    data = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))["data"]
    assert data["categories"] == ["a", "b", "b"]
    assert len(data["notes"]) == 1


def test_unreadable_and_empty_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    (objects / "images" / "class0" / "0.png").write_bytes(b"not a picture")
    (scenes / "a" / "0.png").write_bytes(b"\x89PNG broken")
    Image.new("L", (30, 20)).save(objects / "masks" / "class1" / "1.png")
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    err = capsys.readouterr().err
    assert "note: --foregrounds: " in err
    assert "mask is empty" in err
    assert err.count("skipped 1 of 18 images") == 2
    assert err.count("0.png") >= 2
    counts = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))["data"]["counts"]
    assert counts["training_objects"] + counts["test_objects"] == 16
    assert counts["training_scenes"] + counts["test_scenes"] == 17


def test_folders_that_will_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 4, "b": 4, "c": 4})
    absent, empty = str(tmp_path / "absent"), tmp_path / "empty"
    empty.mkdir()
    given = ["--foregrounds", str(objects), *out]
    assert "--foregrounds: expected a folder, got" in error_of(["--foregrounds", absent, *out], capsys)
    assert "images/<class>/ and masks/<class>/" in error_of(["--foregrounds", str(empty), *out], capsys)
    assert "--backgrounds: expected a folder, got" in error_of([*given, "--backgrounds", absent], capsys)
    assert "--backgrounds: expected <category>/*.jpg" in error_of([*given, "--backgrounds", str(empty)], capsys)
    flat = error_of([*given, "--backgrounds", str(scenes / "a")], capsys)
    assert "a folder for each category" in flat
    single = write_scenes(tmp_path / "one", {"a": 8})
    assert "at least 2 categories" in error_of([*given, "--backgrounds", str(single)], capsys)
    thin = write_scenes(tmp_path / "thin", {"a": 4, "b": 4, "c": 1})
    assert "scenes: expected at least 2 of 'c'" in error_of([*given, "--backgrounds", str(thin)], capsys)


def test_a_folder_without_masks_lists_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = write_objects(tmp_path / "o")
    for mask in (objects / "masks").rglob("*.png"):
        mask.unlink()
    err = error_of(["--foregrounds", str(objects), "--out", str(tmp_path / "out")], capsys)
    assert "18 of 18 images have no mask" in err
    assert "masks/class0/0.png" in err


def test_one_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = write_objects(tmp_path / "o", classes=1)
    err = error_of(["--foregrounds", str(objects), "--out", str(tmp_path / "out")], capsys)
    assert "at least 2 classes" in err


def test_out_that_cannot_be_written_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "load", lambda *_, **__: pytest.fail("data were read first"))
    (tmp_path / "file").write_text("x")
    assert "--out: cannot write into" in error_of(["--out", str(tmp_path / "file")], capsys)
    assert "--out: cannot write into" in error_of(["--out", str(tmp_path / "file" / "below")], capsys)
    if os.geteuid() != 0:  # root writes anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "--out: cannot write into" in error_of(["--out", str(tmp_path / "locked")], capsys)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--correlation", "1.5"], "expected a number in [0, 1], got 1.5"),
        (["--clad-weight", "-1"], "expected a number of at least 0, got -1"),
        (["--clad-weight", "x"], "expected a number of at least 0, got x"),
        (["--clad-weight", "inf"], "expected a number of at least 0, got inf"),
        (["--correlation", "nan"], "expected a number in [0, 1], got nan"),
        (["--size", "8"], "expected a whole number of at least 16, got 8"),
        (["--epochs", "0"], "expected a whole number of at least 1, got 0"),
        (["--epochs", "1.5"], "expected a whole number of at least 1, got 1.5"),
        (["--seed", "-1"], "expected a whole number of at least 0, got -1"),
        (["--methods", "swap,magic"], "expected some of baseline, swap, clad, clad+, got 'swap,magic'"),
        (["--methods", ""], "expected some of baseline"),
    ],
)
def test_arguments_out_of_range(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in error_of(argv, capsys, code=2)


def test_help_names_every_method() -> None:
    assert list(DEMO_METHODS) == list(training.METHODS)


def test_correlation_decides_how_often_a_scene_is_of_the_own_category() -> None:
    n, k = 600, 3
    labels = torch.arange(n) % k
    objects = MaskedTensors(
        torch.full((n, 3, 16, 16), 255, dtype=torch.uint8), labels, torch.zeros(n, 1, 16, 16, dtype=torch.uint8)
    )
    scenes = torch.arange(k, dtype=torch.uint8).view(k, 1, 1, 1).expand(k, 3, 16, 16).contiguous()
    bank = BackgroundBank(scenes, torch.arange(k))
    for correlation, expected in ((1.0, 1.0), (0.0, 1 / 3), (0.5, 2 / 3)):
        composed = _demo_data.compose(objects, bank, correlation, 0, "x")
        own = (composed.images[:, 0, 0, 0].long() == labels).float().mean()
        assert float(own) == pytest.approx(expected, abs=0.07 if correlation < 1 else 0)


def test_cut_out_centres_the_object_at_its_size() -> None:
    image, mask = torch.zeros(3, 40, 60), torch.zeros(1, 40, 60)
    image[:, 2:16, 40:54] = 1
    mask[:, 2:16, 40:54] = 1
    cut = _demo_data.cut_out(image, mask, 32)
    assert cut is not None
    rows = (cut[1][0] > 127).any(1).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (2, 29)
    assert torch.equal(cut[0][0], cut[1][0])
    assert _demo_data.cut_out(image, torch.zeros_like(mask), 32) is None


def test_objects_are_used_equally_often() -> None:
    drawn = _demo_data._repeated(torch.arange(7) + 3, 24, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=10)[3:]
    assert len(drawn) == 24
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("method", list(training.METHODS))
def test_every_method_learns_and_leaves_the_global_generator_alone(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 60, (64, 3, 16, 16), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    masks[:, :, 4:12, 4:12] = 255
    images[:, :, 4:12, 4:12] += (labels * 150).to(torch.uint8)[:, None, None, None]
    bank = BackgroundBank(torch.randint(0, 60, (8, 3, 16, 16), generator=generator, dtype=torch.uint8), [0, 1] * 4)
    data = training.TrainingSet(images, labels, masks, bank, 2)
    before = torch.get_rng_state()
    trained = training.train(method, data, epochs=8, seed=0, batch_size=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert (trained.model(images.float() / 255).argmax(1) == labels).float().mean() > 0.9
    assert not trained.model.training


def test_lambda_weighs_the_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (32, 3, 16, 16), generator=generator, dtype=torch.uint8)
    bank = BackgroundBank(images[:8], [0, 1] * 4)
    masks = torch.zeros(32, 1, 16, 16, dtype=torch.uint8)
    data = training.TrainingSet(images, torch.arange(32) % 2, masks, bank, 2)
    losses = [
        training.train("clad", data, epochs=1, seed=0, batch_size=32, clad_weight=weight).curves["loss"][0]
        for weight in (0.0, 1.0, 3.0)
    ]  # of one step, taken before it
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    bank = BackgroundBank(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [0, 1])
    images = torch.zeros(9, 3, 16, 16, dtype=torch.uint8)
    data = training.TrainingSet(images, torch.arange(9) % 2, images[:, :1], bank, 2)
    sizes = [len(b.image) for b in training._batches(data, 4, torch.Generator().manual_seed(0))]
    assert sizes == [4, 4]
    assert training._steps(9, 4) == 2
    assert training._steps(10, 4) == 3


def test_progress_is_quiet_off_a_terminal_and_plain_without_tqdm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from torch_bgdebias.cli.progress import note, progress

    assert list(progress(range(3), total=3, label="x")) == [0, 1, 2]
    note("hidden")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(progress(range(3), total=3, label="reading")) == [0, 1, 2]
    note("shown")
    assert capsys.readouterr().err == "reading: 3/3\nshown\n"
