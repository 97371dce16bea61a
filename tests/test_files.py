"""The one reader of image files: what counts, in which order, how it is decoded, and errors with names."""

from __future__ import annotations

import os
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.files import (
    UnreadableImageError,
    category_folders,
    decoded,
    image_files,
    open_image,
    orientation,
    read_image,
    spread,
    white_level,
)


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return path


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_files_are_found_by_ending_in_order(tmp_path):
    touch(tmp_path, "b.PNG", "a.jfif", "c/d.jpe", "c/e.tiff", "notes.txt", "f.json", "g.npy")
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)] == [
        "a.jfif", "b.PNG", "c/d.jpe", "c/e.tiff",
    ]  # fmt: skip
    assert image_files(tmp_path / "absent") == []
    assert [path.name for path in image_files(tmp_path, extensions=(".npy",))] == ["g.npy"]


def test_hidden_and_foreign_files_are_passed_over_at_any_depth(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/.ipynb_checkpoints/1.png", "cat/sub/@eaDir/1.jpg", "cat/._1.png")
    touch(tmp_path, "__MACOSX/cat/1.png", ".hidden/1.png", "$RECYCLE.BIN/1.png", "dog/1.png")
    assert [path.parent.name for path in image_files(tmp_path)] == ["cat", "dog"]
    assert [path.name for path in category_folders(tmp_path)] == ["cat", "dog"]


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path, "more/2.png", "d/cat/1.png")
    os.symlink(tmp_path / "more", tmp_path / "d/cat/more")
    os.symlink(tmp_path / "d", tmp_path / "d/cat/loop")
    os.symlink(tmp_path / "more/2.png", tmp_path / "d/cat/3.png")
    assert [path.name for path in image_files(tmp_path / "d")] == ["1.png", "3.png", "2.png"]
    os.symlink(tmp_path / "more", tmp_path / "d/dog")
    assert [path.name for path in category_folders(tmp_path / "d")] == ["cat", "dog"]


def test_a_link_to_nothing_is_named(tmp_path):
    os.symlink(tmp_path / "gone.png", tmp_path / "1.png")
    assert image_files(tmp_path) == [tmp_path / "1.png"]
    with pytest.raises(UnreadableImageError, match=r"1\.png: a link to a file that is not there"):
        read_image(tmp_path / "1.png")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_image(tmp_path / "gone.png")


def test_numbered_folders_come_in_the_order_of_the_numbers(tmp_path):
    for number in range(12):
        (tmp_path / "numbers" / str(number)).mkdir(parents=True)
        (tmp_path / "mixed" / (str(number) if number else "other")).mkdir(parents=True)
    assert [path.name for path in category_folders(tmp_path / "numbers")] == [str(number) for number in range(12)]
    assert [path.name for path in category_folders(tmp_path / "mixed")][:4] == ["1", "10", "11", "2"]


def test_names_that_look_alike_are_named(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é")).mkdir()
    with pytest.raises(ValueError, match=r"expected folders of different names, got two that look alike: é"):
        category_folders(tmp_path)


@pytest.mark.parametrize("turn", range(1, 9))
def test_camera_orientation_is_applied(tmp_path, turn):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[2:5, 3:13] = 255
    # how a camera held that way stores it: the inverse of what a viewer does with the flag
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    for name in ("1.png", "1.tif", "1.webp"):
        picture = Image.fromarray(np.ascontiguousarray(stored))
        picture.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "1.webp" else {}))
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / name)), upright)
    picture.save(tmp_path / "1.jpg", exif=exif, quality=98)
    assert orientation(tmp_path / "1.jpg") == turn
    assert np.abs(np.asarray(open_image(tmp_path / "1.jpg")).astype(int) - upright).max() < 40


def test_a_turned_jpeg_is_drafted_for_the_side_that_it_will_have(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1600, 400), "red").save(tmp_path / "1.jpg", exif=exif)  # seen as 400 wide and 1600 high
    assert open_image(tmp_path / "1.jpg", at_least=(160, 40)).size == (100, 400)
    assert open_image(tmp_path / "1.jpg", at_least=(160, 40), mode="L").mode == "L"


def test_deep_pictures_have_one_scale_a_data_set(tmp_path):
    bright = grey(tmp_path / "bright.png", np.full((4, 4), 4000, np.uint16))
    dark = grey(tmp_path / "dark.png", np.full((4, 4), 200, np.uint16))
    assert white_level([bright, dark]) == 4095
    assert read_image(bright, white=4095).unique().tolist() == [250]
    assert read_image(dark, white=4095).unique().tolist() == [12]
    grey(dark, np.full((4, 4), 9000, np.uint16))
    with pytest.raises(UnreadableImageError, match=r"dark.png: expected values up to 4095, .* got 9000; .* white="):
        read_image(dark, white=4095)
    eight = grey(tmp_path / "eight.png", np.full((4, 4), 200, np.uint8))
    assert white_level([eight]) is None
    assert white_level([]) is None


def test_one_bright_picture_among_others_that_it_makes_black_is_told(tmp_path):
    """Floats in [0, 1], and one picture of counts: one scale for all made 23 of 24 pictures black, in silence."""
    unit = [grey(tmp_path / f"{i}.tif", np.full((4, 4), 0.5, np.float32)) for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert white_level(unit) == 1
    counts = grey(tmp_path / "counts.tif", np.full((4, 4), 900, np.float32))
    with pytest.warns(UserWarning, match="white is 1023, as the brightest of 4 pictures has it, and 3 stop at 1"):
        assert white_level([*unit, counts]) == 1023


def test_float_pictures(tmp_path):
    unit = grey(tmp_path / "unit.tif", np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    assert white_level([unit]) == 1
    assert read_image(unit)[0].flatten().tolist() == [round(255 * i / 15) for i in range(16)]
    wide = grey(tmp_path / "wide.tif", np.linspace(0, 4095, 16, dtype=np.float32).reshape(4, 4))
    assert white_level([unit, wide]) == 4095
    assert int(read_image(wide).max()) == 255
    for bad in (np.array([[-1000.0, 400.0]], np.float32), np.array([[0.0, np.nan]], np.float32)):
        with pytest.raises(UnreadableImageError, match=r"bad.tif: expected values in 0 to 65535, got .*a window"):
            read_image(grey(tmp_path / "bad.tif", bad))


def test_full_sixteen_bits_lose_their_low_byte(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read_image(grey(tmp_path / "1.png", ramp))[0].numpy(), ramp >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_do_not_show(tmp_path, mode):
    pixels = np.full((4, 4, 4), (10, 250, 10, 0), np.uint8)
    pixels[1:3, 1:3] = (200, 200, 200, 255)
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture = Image.fromarray((pixels[..., 3] > 0).astype(np.uint8), "P")
        picture.putpalette([10, 250, 10, 200, 200, 200])
        picture.info["transparency"] = 0
    picture.convert(mode).save(tmp_path / "cut.png")
    seen = read_image(tmp_path / "cut.png")
    assert seen[:, 1:3, 1:3].unique().tolist() == [200]
    assert seen.sum() == 3 * 4 * 200


def test_bombs_and_damage_are_named(tmp_path):
    Image.new("1", (14000, 14000)).save(tmp_path / "huge.png")
    with pytest.raises(UnreadableImageError, match=r"unreadable image file .*huge\.png: .*decompression bomb"):
        decoded(tmp_path / "huge.png")


def test_spread_takes_both_ends():
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread(range(100), 1) == [0]


def test_a_link_to_a_folder_above_brings_no_other_class(tmp_path):
    """Pictures of all other classes were read as this one's."""
    for name in ("cat", "dog"):
        grey(tmp_path / f"images/{name}/0.png", np.zeros((2, 2), np.uint8))
    os.symlink(tmp_path / "images", tmp_path / "images/cat/again")
    os.symlink(tmp_path, tmp_path / "images/cat/top")
    assert image_files(tmp_path / "images/cat") == [tmp_path / "images/cat/0.png"]


def test_links_that_lead_to_themselves_are_named(tmp_path):
    os.symlink("b.png", tmp_path / "a.png")
    os.symlink("a.png", tmp_path / "b.png")
    assert image_files(tmp_path) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert category_folders(tmp_path) == []
    with pytest.raises(UnreadableImageError, match="unreadable image file .*a.png: .*symbolic links"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_that_is_the_same_everywhere_says_nothing(tmp_path, alpha):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(np.dstack([colours, np.full((4, 5), alpha, np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.png")), colours)


def test_another_band_is_not_taken_for_transparency(tmp_path):
    """Near infrared beside red, green and blue darkened the picture by its own brightness."""
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    bands = np.random.default_rng(1).integers(1, 255, (20, 30)).astype(np.uint8)
    Image.fromarray(np.dstack([colours, bands])).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=r"a.tif: its last channel is said .* 100% .*: is it another band"):
        open_image(tmp_path / "a.tif")
    bands[5:15, 5:15] = 255
    bands[:3] = 0
    Image.fromarray(np.dstack([colours, bands])).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "b.tif"))[5:15, 5:15], colours[5:15, 5:15])
