"""``bgdebias audit`` from a folder to a page, and its refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.cli import main


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for number in range(40):
        path = tmp_path / "data" / ("ship", "plane")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = random.integers(0, 200, (24, 24, 3), dtype=np.uint8)
        picture[:, :3] = 250 if number % 2 else 30
        Image.fromarray(picture).save(path)
        rows.append({"image": f"{path.parent.name}/{path.name}", "site": "ab"[number % 3 > 0], "patient": number // 2})
    with open(tmp_path / "index.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def arguments(data, *more):
    words = ["audit", data / "data", "--out", data / "out", "--permutations", 199, *more]
    return [str(word) for word in words]


def test_page_json_and_text(data, capsys):
    assert main(arguments(data)) == 0
    printed = capsys.readouterr()
    assert "The two classes can be told by what is not the object" in printed.out
    assert "bgdebias audit: 40 pictures" in printed.err
    assert (data / "out" / "audit.html").read_text().startswith("<!DOCTYPE html>")
    content = json.loads((data / "out" / "audit.json").read_text())
    assert "border" in [finding["cue"] for finding in content["findings"]]
    assert main(arguments(data)) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    (data / "empty").mkdir()  # what is wrong with the input comes first
    assert main(["audit", str(data / "empty"), "--out", str(data / "out")]) == 1
    err = capsys.readouterr().err
    assert "empty" in err
    assert "--overwrite" not in err


def test_table_columns_and_groups(data, capsys):
    words = arguments(data, "--table", data / "index.csv", "--columns", "site", "--groups", "patient", "--json")
    assert main(words) == 0
    cues = {reading["cue"] for reading in json.loads(capsys.readouterr().out)["readings"]}
    assert "column site" in cues
    assert main(arguments(data, "--table", data / "index.csv", "--columns", "place", "--overwrite")) == 1
    assert "--columns: expected some of site, patient, got place" in capsys.readouterr().err


def test_no_pictures(data, capsys):
    assert main(["audit", str(data / "nowhere"), "--out", str(data / "out")]) == 1
    assert "data: expected a file or folder, found nothing at" in capsys.readouterr().err


def test_help_does_without_torch():
    code = (
        "import sys; from torch_bgdebias.cli import main; main(['audit', '--help']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--groups" in done.stdout
