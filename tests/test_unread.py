"""What lies among pictures and is not read is counted; what has several pages is named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias import BackgroundBank, MaskedImageFolder
from torch_bgdebias.unread import apart, what_is_not_read


def pictures(count=3):
    return [Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)) for k in range(count)]


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        for part in ("images", "masks"):
            (tmp_path / part / name).mkdir(parents=True)
        pictures()[1].save(tmp_path / f"images/{name}/0.png")
        inside = np.zeros((8, 8), np.uint8)
        inside[2:6, 2:6] = 255
        Image.fromarray(inside).save(tmp_path / f"masks/{name}/0.png")
    return tmp_path


@pytest.mark.parametrize("name", ["a.heic", "a.DNG", "a.svg", "a.npz", "a.nii"])
def test_formats_that_are_not_read_are_counted_by_folders_and_banks(folder, name):
    (folder / "images/cat" / name).write_bytes(b"x")
    text = rf"images: 1 files of formats that are not read were passed over \(\{name[1:].lower()}: {name}\); save them"
    with pytest.warns(UserWarning, match=text):
        assert len(MaskedImageFolder(folder)) == 2
    with pytest.warns(UserWarning, match=text):
        assert len(BackgroundBank.from_folder(folder / "images", 8)) == 2


def test_what_is_no_picture_is_not_spoken_of(tmp_path):
    names = [tmp_path / name for name in ("a.txt", "a.json", "a.xml", "Thumbs.db", "a.csv", "a.jpg")]
    assert apart(names) == (names, [])
    assert what_is_not_read([], []) == []


@pytest.mark.parametrize("ending", [".tif", ".gif"])
def test_several_pages_of_an_image(folder, ending):
    first, *rest = pictures()
    first.save(folder / f"images/cat/0{ending}", save_all=True, append_images=rest)
    (folder / "images/cat/0.png").unlink()
    with pytest.warns(UserWarning, match=rf"1 files hold several pages or frames, of which the first .*\(0{ending}\)"):
        data = MaskedImageFolder(folder)
    assert float(data[0][0].max()) == 0  # the first one, as torchvision reads it
