"""Parquet files hold what JSON holds, bit for bit, and say what is wrong with others."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from torch_bgdebias.probe import BackgroundBiasReport, ImageResults, compare_models, summarise
from torch_bgdebias.probe.results import parquet
from torch_bgdebias.probe.results.layout import plain

arrow = pytest.importorskip("pyarrow")


def report(n: int = 50, *, sets: bool = False) -> BackgroundBiasReport:
    rng = np.random.default_rng(0)
    names = ("original", "mixed_same", "mixed_rand")
    label = rng.integers(0, 3, n)
    odds = {name: rng.normal(size=(n, 3)).astype(np.float32) for name in names} if sets else {}
    cosine = rng.random(n).astype(np.float32)
    cosine[0] = np.nan
    images = ImageResults(
        np.sort(rng.integers(0, 2**63, n).astype(np.uint64) * np.uint64(2) + np.uint64(1)),
        label,
        {name: rng.integers(-1, 3, n) for name in names},
        {name: rng.random(n).astype(np.float32) for name in names},
        cosine={"mixed_rand": cosine},
        background_label={"mixed_rand": rng.integers(-1, 3, n)},
        scores={"pixel_ratio/grad_cam": rng.random(n).astype(np.float32)},
        position=np.arange(n),
        targets=rng.integers(0, 2, (n, 3)).astype(np.uint8) if sets else None,
        log_odds=odds,
        groups={"site": rng.choice(["north", "süd"], n)},
        unit=rng.choice(["a", "b", "c"], n),
    )
    return summarise(images, model="net", class_names=["cat", "dog", "emu"], settings={"seed": 3})


@pytest.mark.parametrize("sets", [False, True])
def test_what_was_written_is_read(tmp_path, monkeypatch, sets):
    monkeypatch.setattr(parquet, "_ROWS", 7)  # several parts
    one = report(sets=sets)
    one.to_parquet(tmp_path / "r.parquet")
    again = BackgroundBiasReport.from_parquet(tmp_path / "r.parquet")
    assert again.to_dict() == one.to_dict()
    for name, value in plain(one.images).items():
        assert plain(getattr(again.images, name)) == value, name
    assert again.images.id.dtype == np.uint64
    assert again.images.confidence["original"].dtype == np.float32
    change = compare_models([one, again])[0]
    assert change is not None
    assert change.n == 50
    assert list(tmp_path.iterdir()) == [tmp_path / "r.parquet"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: expected a report's Parquet file.*no such file"):
        BackgroundBiasReport.from_parquet(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"text\.parquet: expected a report's Parquet file"):
        BackgroundBiasReport.from_parquet(tmp_path / "text.parquet")
    from pyarrow import parquet as writer

    writer.write_table(arrow.table({"id": [1, 2]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="it has the columns id"):
        BackgroundBiasReport.from_parquet(tmp_path / "other.parquet")
    report().to_parquet(tmp_path / "r.parquet")
    whole = writer.read_table(tmp_path / "r.parquet")
    writer.write_table(whole.drop(["label"]), tmp_path / "cut.parquet")
    with pytest.raises(ValueError, match="it has no column 'label'"):
        BackgroundBiasReport.from_parquet(tmp_path / "cut.parquet")
    writer.write_table(whole.append_column("stray", [range(50)]), tmp_path / "more.parquet")
    with pytest.raises(ValueError, match="it has a column 'stray'"):
        BackgroundBiasReport.from_parquet(tmp_path / "more.parquet")


@pytest.mark.parametrize("kind", ["rows", "texts", "lists"])
def test_bombs_are_refused_by_name_before_they_are_unfolded(tmp_path, kind):
    from pyarrow import parquet as writer

    report().to_parquet(tmp_path / "r.parquet")
    metadata, n = writer.read_schema(tmp_path / "r.parquet").metadata, 20_000_000 if kind == "rows" else 1000
    columns = {"id": arrow.array(np.zeros(n, np.uint64)), "label": arrow.array(np.zeros(n, np.int64))}
    if kind == "texts":
        columns["groups/site"] = arrow.DictionaryArray.from_arrays(np.zeros(n, np.int32), ["a" * 2_000_000])
    if kind == "lists":
        zeros = arrow.array(np.zeros(50_000 * n, np.uint8))
        columns["targets"] = arrow.FixedSizeListArray.from_arrays(zeros, 50_000)
    path = tmp_path / "bomb.parquet"
    writer.write_table(arrow.table(columns).replace_schema_metadata(metadata), path, compression="zstd")
    del columns
    assert path.stat().st_size < 2**19
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"bomb\.parquet: .*expected at most \d+ bytes .*of a file of this size, got"):
        BackgroundBiasReport.from_parquet(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17, "more than 128 MiB"


def test_groups_that_are_no_texts_are_refused(tmp_path):
    from pyarrow import parquet as writer

    report().to_parquet(tmp_path / "r.parquet")
    whole = writer.read_table(tmp_path / "r.parquet")
    writer.write_table(whole.append_column("groups/site", [["a"] * 50]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: .*it has the column 'groups/site' 2 times"):
        BackgroundBiasReport.from_parquet(tmp_path / "x.parquet")
    for column in ([None] * 50, ["a", None] * 25, [1] * 50):
        writer.write_table(whole.append_column("groups/x", [column]), tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=r"x\.parquet: groups/x: expected a text an image, got"):
            BackgroundBiasReport.from_parquet(tmp_path / "x.parquet")


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'torch_bgdebias\[parquet\]'"):
        report().to_parquet(tmp_path / "r.parquet")
