"""Groups from tables and folders find every image, or say which they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import Subset

from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.probe import groups_from_csv, groups_from_folders

PATHS = ["data/images/cat/1.png", "data/images/cat/2.png", "data/images/dog/1.png"]


def table(folder: Path, text: str) -> Path:
    path = folder / "sites.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,site,sex\ncat/1.png,A,f\ncat/2.png,B,m\ndog/1.png,A,m\n",
        "file,site\nimages/cat/1,A\nimages\\cat\\2.png,B\n./dog/1.png, A \nelsewhere/9.png,C\n",
        "file,site\ncat/1.png,A\n2.png,B\ndog/1.png,A\n",
    ],
)
def test_names_go_with_as_many_folders_as_they_have(tmp_path: Path, text: str) -> None:
    assert groups_from_csv(table(tmp_path, text), PATHS, "site") == ["A", "B", "A"]


def test_whole_paths_are_names_as_well(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/{path}" for path in PATHS]
    rows = [f"{paths[0]},A", f"{paths[1].removesuffix('.png')},B", f"{paths[2]},A"]
    assert groups_from_csv(table(tmp_path, "\n".join(["file,site", *rows])), paths, "site") == ["A", "B", "A"]


def test_another_column_holds_the_images(tmp_path: Path) -> None:
    path = table(tmp_path, "site,n,image\nA,1,cat/1.png\nB,2,cat/2.png\nC,3,dog/1.png\n")
    assert groups_from_csv(path, PATHS, "site", image_column="image") == ["A", "B", "C"]
    assert groups_from_csv(path, PATHS, "n", image_column="image") == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,site\ncat/1.png,A\n", "no row for 2 of 3 images: data/images/cat/2.png, data/images/dog/1.png"),
        (
            "file,site\n1.png,A\n2.png,B\n",
            "'1.png' fits several images, data/images/cat/1.png and data/images/dog/1.png",
        ),
        ("file,site\ncat/1.png,A\ncat/1.png,B\n", "row 3: 'cat/1.png' is in 'A' in an earlier row, in 'B' here"),
        ("file,camera\ncat/1.png,A\n", r"expected a column 'site', got \['file', 'camera'\]"),
        ("", r"expected a column None, got \[\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        groups_from_csv(table(tmp_path, text), PATHS, "site")


def test_folders(tmp_path: Path) -> None:
    assert groups_from_folders(PATHS) == ["cat", "cat", "dog"]
    assert groups_from_folders([Path("a/cat/1.png"), Path("b/cat/1.png")], level=2) == ["a", "b"]
    with pytest.raises(ValueError, match="level: expected a folder 2 above every image, got cat/1.png"):
        groups_from_folders(["cat/1.png"], level=2)
    with pytest.raises(ValueError, match="level: expected 1"):
        groups_from_folders(PATHS, level=0)
    with pytest.raises(TypeError, match="images: expected a data set that lists its files.*got int"):
        groups_from_folders(3)


def test_data_sets_say_which_files_they_read(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a/1", "a/2", "b/1"):
        for kind, colour in (("images", (200, 10, 10)), ("masks", (255, 255, 255))):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", (8, 8), (0, 0, 0))
            picture.paste(colour, (2, 2, 6, 6))
            picture.save(path)
    data = MaskedImageFolder(tmp_path)
    assert groups_from_folders(data) == ["a", "a", "b"]
    assert groups_from_folders(Subset(data, [2, 0])) == ["b", "a"]
