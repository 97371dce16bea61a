"""Parquet files hold what JSON holds, bit for bit, and say what is wrong with others."""

from __future__ import annotations

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


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'torch_bgdebias\[parquet\]'"):
        report().to_parquet(tmp_path / "r.parquet")
