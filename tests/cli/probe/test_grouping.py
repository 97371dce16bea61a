"""``--groups`` and ``--unit``: from a table, from a table in the data's folder, from folders' names."""

from __future__ import annotations

import json

import pytest
from probe_command import command

from torch_bgdebias.probe import BackgroundBiasReport

WORDS = ("--model", "trial_nets:Corner", "--attributions", "", "--variants", "mixed_same,mixed_rand", "--out", "out")

pytestmark = pytest.mark.filterwarnings("ignore:feature consistency is left out")


def write_table(path) -> None:
    lines = ["picture,site,patient,day"]
    for label, name in enumerate(("cat", "dog", "emu")):
        lines += [f"{name}/{i}.png,{'north' if i else 'south'},p{i},{10 * label + i}" for i in range(3)]
    path.write_text("\n".join(lines) + "\n")


def test_a_column_a_table_and_folders(place, capsys):
    write_table(place / "sites.csv")
    assert command(*WORDS, "--groups", "sites.csv:site", "--groups", "folder:1", "--unit", "sites.csv:patient") == 0
    printed = capsys.readouterr().out
    report = BackgroundBiasReport.from_json("out/report.json")
    assert {name: [row.name for row in rows] for name, rows in report.per_group.items()} == {
        "site": ["north", "south"],
        "folder 1": ["cat", "dog", "emu"],
    }
    assert [row.n for row in report.per_group["site"]] == [6, 3]
    assert report.counts["units"] == 3
    assert "worst site: " in printed
    assert "corrected for being the worst of 6 accuracies" in printed
    page = (place / "out/report.html").read_text(encoding="utf-8")
    assert "north" in page


def test_a_whole_table_and_one_in_the_data_s_folder(place, capsys):
    write_table(place / "data/patients.csv")
    assert command(*WORDS, "--groups", "data/patients.csv", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["worst_group"]) == {"site", "patient", "day"}
    assert command(*WORDS, "--groups", "site", "--unit", "patient", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["worst_group"]) == {"site"}
    assert result["worst_group"]["site"]["among"] == 6
    assert result["counts"]["units"] == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("--groups", "hospital"),
            "--groups: expected FILE.csv:COLUMN, folder:LEVEL, or a column of a table in --data",
        ),
        (("--groups", "hospital"), "(t.csv has picture, site, patient, day)"),
        (("--groups", "data/t.csv:hospital"), "expected a column 'hospital'"),
        (("--groups", "site", "--groups", "site"), "--groups: 'site' is named twice"),
        (("--unit", "data/t.csv"), "--unit: expected a column, data/t.csv:COLUMN, got a table"),
        (("--unit", "nobody"), "--unit: expected FILE.csv:COLUMN"),
        (("--groups", "absent.csv:site"), "absent.csv: no such file or directory"),
        (("--groups", "folder:9"), "expected a folder 9 above every image"),
    ],
)
def test_what_does_not_fit_is_one_line(place, capsys, words, text):
    write_table(place / "data/t.csv")
    assert command(*WORDS, *words) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.splitlines()[-1].startswith("bgdebias probe: error: ")


def test_two_tables_with_one_column_are_not_guessed_from(place, capsys):
    write_table(place / "data/a.csv")
    write_table(place / "data/b.csv")
    assert command(*WORDS, "--groups", "site") == 1
    assert "a.csv, b.csv have 'site' both" in capsys.readouterr().err


def test_parquet_in_place_of_json(place, capsys):
    pytest.importorskip("pyarrow")
    assert command(*WORDS, "--parquet", "--groups", "folder:1") == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == ["report.html", "report.parquet"]
    report = BackgroundBiasReport.from_parquet("out/report.parquet")
    assert len(report.images) == 9
    assert list(report.per_group) == ["folder 1"]
