"""Files with one fact changed: the view of that fact changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.audit.file_facts import fact_table, file_facts, name_words


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_jpeg_quality_is_compression_and_bytes(picture, tmp_path):
    facts = []
    for quality in (60, 95):
        picture.save(tmp_path / f"{quality}.jpg", quality=quality)
        facts.append(file_facts(tmp_path / f"{quality}.jpg"))
    assert facts[0]["size"] == facts[1]["size"]
    assert facts[0]["compression"]["quantisation table 0"] > facts[1]["compression"]["quantisation table 0"]
    assert facts[0]["compression"]["sampling"] == facts[1]["compression"]["sampling"]
    assert facts[0]["file size"]["bytes"] < facts[1]["file size"]["bytes"]


def test_exif(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "Camera 7"
    exif.get_ifd(0x8769).update({0x9003: "2020:01:02 17:30:00", 0x829A: 0.01, 0x8827: 400})
    picture.save(tmp_path / "a.jpg", exif=exif)
    facts = file_facts(tmp_path / "a.jpg")["exif"]
    assert facts["camera"] == "Camera 7"
    assert facts["hour"] == 17
    assert facts["sensitivity"] == pytest.approx(np.log(400))
    picture.save(tmp_path / "b.jpg")
    assert file_facts(tmp_path / "b.jpg")["exif"] == {"tags": 0.0}


def test_a_damaged_file_says_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert not any(file_facts(tmp_path / "a.jpg").values())


def test_names_without_class_and_numbers():
    root = Path("/data/images")
    words = name_words(root / "dog" / "siteA" / "Dog_patient12_003.jpg", root, "dog")
    assert words == {"prefix": "", "pattern": "_patient9_9", "folder": "siteA", "length": 14.0}
    assert name_words(root / "cat" / "MCU_1.png", root, "cat")["prefix"] == "MCU"


def test_words_become_columns():
    rows = [{"a": 1.0, "b": "x"}, {"a": 2.0, "b": "x"}, {"b": "x"}, {"a": 3.0, "b": "y"}]
    table, names = fact_table(rows)
    assert names == ["a", "no a", "b x", "b rare or missing"]
    np.testing.assert_array_equal(table, [[1, 0, 1, 0], [2, 0, 1, 0], [np.nan, 1, 1, 0], [3, 0, 0, 1]])
    assert fact_table([{}, {}])[0].shape == (2, 0)
