"""What masks hold, and what cannot be known from it."""

from __future__ import annotations

import numpy as np
import pytest
from mask_encoders import INSIDE, save
from PIL import Image

from torch_bgdebias.files import UnreadableImageError
from torch_bgdebias.masks import MaskEncoding, MaskEncodingError, read_mask
from torch_bgdebias.masks.contents import load_mask
from torch_bgdebias.masks.detection import _white_value
from torch_bgdebias.masks.reading import MaskReader


def ramp():
    """A wide soft edge of an ellipse, 0 to 255."""
    y, x = np.mgrid[:60, :80]
    return 255 * np.clip(1.5 - np.hypot((y - 30) / 20, (x - 40) / 26), 0, 1)


def written(folder, values, name="m.png"):
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        save(values, path)
    return path


def areas(*levels):
    """Background of the first level, an object whose columns have the others."""
    values = np.full(INSIDE.shape, levels[0])
    columns = np.array(levels[1:])[np.arange(8) * len(levels[1:]) // 8]
    values[5:15, 6:14] = columns[None]
    return values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            areas(2, 1, 3).astype(np.uint8),
            r"m.png \(L\): what is object\? Found the values 1, 2, 3, and no 0 .*foreground=",
        ),
        (
            areas(0, 128, 255).astype(np.uint8),
            r'areas of the values 0, 128, 255; say encoding="soft" .* "binary" .*"index"',
        ),
        (areas(0, 85, 170, 255).astype(np.uint8), r"areas of the values 0, 85, 170, 255"),
        (np.arange(480).reshape(20, 24).astype(np.uint8) % 100, r"100 values up to 99 that form no areas"),
        (areas(1, 255).astype(np.uint8), r"the values 1, 255, and no 0 for background"),
        (
            np.random.default_rng(0).integers(60, 256, (20, 24), np.uint8),
            r"grey levels, 8\d% of .* near 255: photographs",
        ),
        (
            np.minimum(ramp() * 0.7, 178).astype(np.uint8),
            r"\d\d grey levels that run into each other, up to 178; say enc",
        ),
        (np.full((20, 24, 3), (255, 255, 0), np.uint8), r"the colours \(255, 255, 0\), and no black for background"),
        (np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8), r"no black|colours: a preview"),
    ],
)
def test_what_cannot_be_known_is_shown(tmp_path, values, text):
    with pytest.raises(MaskEncodingError, match=text):
        read_mask(written(tmp_path, values))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (areas(-8.0, 9.0), r"values from -8 to 9; .*apply a sigmoid"),
        (areas(0.0, np.nan), r"values from nan to nan"),
        (areas(0.0, 3.5), r"fractions up to 3.5"),
        (np.where(INSIDE, -1, 0).astype(np.int8), r"values from -1 to 0; "),  # 255 as a signed byte
    ],
)
def test_arrays_that_are_no_masks(tmp_path, values, text):
    with pytest.raises(MaskEncodingError, match=text):
        read_mask(written(tmp_path, values, "m.npy"))


def channels(*masks, last=False, dtype=np.uint8):
    return np.stack(masks, 2 if last else 0).astype(dtype)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["m.npy", "m.npz"])
def test_a_channel_a_class_is_read(tmp_path, name, last, dtype):
    left, right = INSIDE & (np.arange(24) < 10), INSIDE & (np.arange(24) >= 10)
    nothing = np.zeros_like(INSIDE)
    for masks in ((~INSIDE, INSIDE), (~INSIDE, left, right), (~INSIDE, INSIDE, nothing), (left, right)):
        values = channels(*masks, last=last, dtype=dtype)
        np.savez_compressed(tmp_path / name, values) if name == "m.npz" else np.save(tmp_path / name, values)
        np.testing.assert_array_equal(read_mask(tmp_path / name)[0].numpy() == 255, INSIDE)
        levels = set(load_mask(tmp_path / name).levels)
        assert levels == ({0, 1} if masks[1] is INSIDE else {0, 1, 2})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (channels(~INSIDE, INSIDE, INSIDE), "channels overlap: of an object a channel save values.any"),
        (channels(~INSIDE * 0.7, INSIDE * 0.7, dtype=np.float32), "of a channel a class save values.argmax"),
        (np.zeros((2, 3, 20, 24)), r"expected an array \(H, W\) of numbers, got array float64 \(2, 3, 20, 24\)$"),
    ],
)
def test_channels_that_are_no_labels_say_what_to_save(tmp_path, values, text):
    with pytest.raises(UnreadableImageError, match=text):
        read_mask(written(tmp_path, values, "m.npy"))


def test_archives_of_arrays_hold_one_mask(tmp_path, monkeypatch):
    np.savez(tmp_path / "m.npz", mask=INSIDE, image=np.ones((3, 20, 24)))
    assert int(read_mask(tmp_path / "m.npz").sum()) == 80 * 255
    np.savez(tmp_path / "two.npz", a=INSIDE, b=INSIDE)
    with pytest.raises(UnreadableImageError, match=r"two.npz: expected one array, or one called mask, got a, b; save"):
        read_mask(tmp_path / "two.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:99])
    with pytest.raises(UnreadableImageError, match=r"unreadable mask file .*broken.npz"):
        read_mask(tmp_path / "broken.npz")
    monkeypatch.setattr("torch_bgdebias.masks.contents._MOST_BYTES", 400)
    with pytest.raises(UnreadableImageError, match=r"m.npz: an array of \d+ bytes is not unpacked"):
        read_mask(tmp_path / "m.npz")


def test_a_wide_soft_edge_is_no_label_map(tmp_path):
    """Saliency networks write masks with large areas of 1, 2, 253, 254 beside 0 and 255."""
    noise = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 3, (15, 20)), 4, 0), 4, 1)
    values = np.clip(ramp() + noise * np.where(ramp() > 127, -1, 1), 0, 254).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(written(tmp_path, values)).numpy()[0], values)


def resized_label(value, resample):
    """An ellipse of one label, drawn at thrice its size."""
    y, x = np.mgrid[:180, :240]
    large = (np.hypot((y - 90) / 50, (x - 120) / 70) < 1) * value
    return np.asarray(Image.fromarray(large.astype(np.uint8)).resize((80, 60), resample))


@pytest.mark.parametrize("resample", ["BILINEAR", "BICUBIC", "HAMMING", "BOX"])
@pytest.mark.parametrize("value", [5, 38, 128])
def test_a_label_that_was_resized_has_soft_edges(tmp_path, value, resample):
    """Every shade was object, so that objects grew by a pixel all around."""
    values = resized_label(value, Image.Resampling[resample])
    shares = read_mask(written(tmp_path, values))[0].numpy() / 255
    np.testing.assert_allclose(shares, np.minimum(values / value, 1), atol=0.003)


def test_labels_that_were_resized_together_are_refused(tmp_path):
    both = np.concatenate([resized_label(10, Image.Resampling.BILINEAR), resized_label(26, Image.Resampling.BILINEAR)])
    with pytest.raises(
        MaskEncodingError, match=r"the labels 10, 26 with shades between them and 0, .*nearest neighbour"
    ):
        read_mask(written(tmp_path, both))
    small = np.where(INSIDE, 1, 0)  # labels of a few pixels are none
    small[7:9, 7:9], small[12, 8:12], small[6, 10] = 2, 3, 4
    assert int(read_mask(written(tmp_path, small.astype(np.uint8), "small.png")).sum()) == 80 * 255


@pytest.mark.parametrize("places", [(np.s_[29, 20:24], np.s_[29, 26:28]), (np.s_[0, 5:9], np.s_[5:9, -1])])
def test_small_things_between_labels_and_at_the_edge_are_no_shades(tmp_path, places):
    """One mask of six holds them; where things touch, their pixels lie between the labels beside them."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:40], labels[30:50, 15:60] = 2, 9
    small = labels.copy()
    small[places[0]], small[places[1]] = 5, 7
    paths = [written(tmp_path, small if i == 0 else labels, f"{i}.png") for i in range(6)]
    reader = MaskReader.of_folder(paths, MaskEncoding())
    for path, values in zip(paths, [small, *[labels] * 5], strict=True):
        np.testing.assert_array_equal(np.asarray(reader.open(path).foreground) > 0, values > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_areas_and_what_lies_between_are_those_of_every_pixel_s_surroundings(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 3, (17, 23)).astype(dtype)
    values[3:8, 4:9] = 7
    contents = load_mask(written(tmp_path, values, "m.npy"))
    around = {(y, x): values[y - 1 : y + 2, x - 1 : x + 2] for y in range(1, 16) for x in range(1, 22)}
    areas_by_hand = {values[place] for place, window in around.items() if (window == values[place]).all()}
    assert 7 in areas_by_hand
    assert contents.areas == areas_by_hand
    between = [window.min() < 1 < window.max() for place, window in around.items() if values[place] == 1]
    assert contents.between([1]) == pytest.approx(np.mean(between))
    assert contents.between([8]) is None


def test_options_settle_it(tmp_path):
    trimap = written(tmp_path, areas(2, 1, 3).astype(np.uint8))
    picture = MaskReader(MaskEncoding(foreground=(1,), void=(3,)), {}).open(trimap)
    assert (np.asarray(picture.foreground) > 0).sum() == 40
    assert (np.asarray(picture.void) > 0).sum() == 40
    halves = written(tmp_path, areas(0, 128, 255).astype(np.uint8), "halves.png")
    for kind, total in (("soft", 40 * 128 + 40 * 255), ("binary", 80 * 255), ("index", 40 * 255)):
        assert int(read_mask(halves, encoding=kind).sum()) == total
    assert int(read_mask(halves, encoding=MaskEncoding("index", void=())).sum()) == 80 * 255
    colours = written(tmp_path, np.where(INSIDE[..., None], (255, 0, 0), (255, 255, 255)).astype(np.uint8), "c.png")
    for label in ("#ff0000", (255, 0, 0)):
        assert int(read_mask(colours, encoding=MaskEncoding(foreground=(label,))).sum()) == 80 * 255


@pytest.mark.parametrize(
    ("most", "dtype", "white"),
    [
        (1.0, np.float32, 1.0), (1.5, np.float32, 255.0), (255.0, np.float32, 255.0), (256.0, np.float32, 65535.0),
        (65535.0, np.float32, 65535.0), (255, np.uint16, 255.0), (256, np.uint16, 65535.0), (65535, np.uint16, 65535.0),
    ],
)  # fmt: skip
def test_the_white_of_shares_is_that_of_the_bit_depth(tmp_path, most, dtype, white):
    mask = load_mask(written(tmp_path, (ramp() / 255 * most).astype(dtype), "m.npy"))
    assert _white_value([mask], "soft") == white
