"""A folder's masks are looked at together: encodings, inversion, void, orientation, one scale for deep images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mask_encoders import ENCODERS, INSIDE, VOC_PALETTE, paletted
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder, MaskEncoding, MaskEncodingError
from torch_bgdebias.masks import read_mask


def make(root, write, n=4, classes=("cat", "dog")):
    """``write(path without ending, number)`` writes each mask."""
    for k, name in enumerate(classes):
        for part in ("images", "masks"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = np.random.default_rng(10 * k + i).integers(60, 200, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"images/{name}/{i}.png")
            write(root / f"masks/{name}/{i}", i)
    return root


def grey(values):
    return lambda path, i: Image.fromarray(np.asarray(values(i), np.uint8)).save(path.with_suffix(".png"))


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoding_reads_as_the_object(tmp_path, name):
    ending, write = ENCODERS[name]
    data = MaskedImageFolder(make(tmp_path, lambda path, i: write(INSIDE, path.with_suffix(ending))))
    for i in range(len(data)):
        np.testing.assert_array_equal(data[i][2][0].numpy() > 0.5, INSIDE)


def test_one_label_a_picture_and_mixed_tools(tmp_path):
    data = MaskedImageFolder(make(tmp_path, grey(lambda i: INSIDE * (i + 1))))
    assert {float(data[i][2].sum()) for i in range(8)} == {80.0}
    data = MaskedImageFolder(make(tmp_path, grey(lambda i: INSIDE * (255 if i % 2 else 1))))
    assert {float(data[i][2].sum()) for i in range(8)} == {80.0}


@pytest.mark.parametrize("kind", ["0 and 255", "0 and 1", "float array", "JPEG"])
def test_inverted_masks_are_questioned_and_turned_round(tmp_path, kind):
    ending, write = ENCODERS[kind]
    root = make(tmp_path, lambda path, i: write(~INSIDE, path.with_suffix(ending)))
    text = r"masks \(8 looked at, .* cover 83 % of .* touch every border in 8 of 8: inverted\? Say foreground=\[0\]"
    with pytest.raises(MaskEncodingError, match=text.replace(" %", "%")):
        MaskedImageFolder(root)
    np.testing.assert_array_equal(MaskedImageFolder(root, foreground=[0])[0][2][0].numpy() > 0.5, INSIDE)
    if kind != "JPEG":
        one = 1 if kind != "0 and 255" else 255
        np.testing.assert_array_equal(MaskedImageFolder(root, foreground=[one])[0][2][0].numpy() > 0.5, ~INSIDE)


def test_classes_told_apart_by_grey_are_no_halves(tmp_path):
    root = make(tmp_path, grey(lambda i: INSIDE * (128 if i % 2 else 255)))
    with pytest.raises(MaskEncodingError, match=r'areas of the values 0, 128, 255; say encoding="soft"'):
        MaskedImageFolder(root)
    assert {float(MaskedImageFolder(root, encoding="index", void=[])[i][2].sum()) for i in range(8)} == {80.0}


def test_a_large_object_inverted(tmp_path):
    """It leaves less than half of the picture to what is white, which is all of the edge."""
    large = np.zeros_like(INSIDE)
    large[1:-1, 1:-1] = True
    with pytest.raises(MaskEncodingError, match=r"cover 18% of .* touch every border in 8 of 8: inverted"):
        MaskedImageFolder(make(tmp_path / "a", grey(lambda i: ~large * 255)))
    assert MaskedImageFolder(make(tmp_path / "b", grey(lambda i: large * 255)))[0][2].mean() > 0.8


def test_masks_without_any_object(tmp_path):
    root = make(tmp_path, grey(lambda i: INSIDE * 0))
    with pytest.raises(MaskEncodingError, match=r"values 0\): expected an object in some, got none; say foreground="):
        MaskedImageFolder(root)
    root = make(tmp_path, grey(lambda i: INSIDE * 3))
    with pytest.raises(MaskEncodingError, match=r"values 0, 3\): expected an object .* none with foreground=\[15\]"):
        MaskedImageFolder(root, foreground=[15])


@pytest.mark.parametrize("number", range(30, 33))
def test_a_mask_that_is_encoded_otherwise_is_named(tmp_path, number):
    """Whether or not it is among the masks that are looked at when the folder is opened."""
    root = make(tmp_path, grey(lambda i: INSIDE * 255), n=60)
    odd = np.where(INSIDE, np.where(np.arange(24) < 10, 1, 255), 0)
    Image.fromarray(odd.astype(np.uint8)).save(root / f"masks/cat/{number}.png")
    with pytest.raises(
        MaskEncodingError, match=rf"cat/{number}.png.*(values 0, 1, 255, where the folder's|beside 1 in 1)"
    ):
        [MaskedImageFolder(root)[i] for i in range(120)]


def test_one_odd_mask_can_be_left_out(tmp_path):
    root = make(tmp_path, grey(lambda i: INSIDE * 255), n=60)
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(root / "masks/cat/10.png")
    Image.fromarray(np.full((20, 24, 3), (9, 8, 7), np.uint8)).save(root / "masks/cat/31.png")
    with pytest.warns(UserWarning, match=r"skipped [12] of 120 images: .*31.png \(mask .*what is object\?"):
        assert len(MaskedImageFolder(root, on_error="skip")) in (118, 119)


def test_void_is_neither_object_nor_background(tmp_path):
    ring = np.zeros_like(INSIDE)
    ring[4, 6:14] = ring[15, 6:14] = True
    index = np.where(ring, 255, np.where(INSIDE, 15, 0))
    root = make(tmp_path, lambda path, i: paletted(index, VOC_PALETTE, path.with_suffix(".png")))
    data = MaskedImageFolder(root)
    assert data[0][2].sum() == 80
    np.testing.assert_array_equal(data.void(0)[0].numpy(), ring)
    small = MaskedImageFolder(root, size=(10, 12))
    assert small.void(0).dtype == torch.bool
    assert not (small[0][2][small.void(0)] > 0).any()
    assert MaskedImageFolder(root, encoding=MaskEncoding("index", void=()))[0][2].sum() == 96
    with pytest.raises(ValueError, match="expected foreground and void inside the MaskEncoding"):
        MaskedImageFolder(root, encoding=MaskEncoding("index"), void=[255])


def photo(root, orientation, size, stored_mask):
    """A white object on black as one sees it, stored turned; its mask drawn on the upright or the stored picture."""
    width, height = size
    upright = np.zeros((height, width, 3), np.uint8)
    upright[2:8, 3:9] = 255
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    for part in ("images/c", "masks/c"):
        (root / part).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).transpose(turn).save(root / "images/c/1.jpg", exif=exif, quality=98)
    mask = Image.fromarray(upright[..., 0])
    (mask.transpose(turn) if stored_mask else mask).save(root / "masks/c/1.png")
    return root


@pytest.mark.parametrize(
    ("orientation", "size", "stored_mask"),
    [(3, (32, 24), False), (6, (24, 24), False), (6, (32, 24), False), (6, (32, 24), True)],
)
def test_turned_photographs_lie_under_their_masks(tmp_path, orientation, size, stored_mask):
    with pytest.warns(UserWarning, match=rf"1 pictures \(1.jpg: EXIF orientation {orientation}\) were stored turned"):
        image, _, mask = MaskedImageFolder(photo(tmp_path, orientation, size, stored_mask))[0]
    assert ((image.mean(0) > 0.5) == (mask[0] > 0.5)).all()


def test_deep_images_have_one_scale(tmp_path):
    root = make(tmp_path, grey(lambda i: INSIDE * 255))
    for i, level in enumerate((400, 4000, 200, 3000)):
        for name in ("cat", "dog"):
            Image.fromarray(np.full((20, 24), level, np.uint16)).save(root / f"images/{name}/{i}.png")
    data = MaskedImageFolder(root)
    assert data.white == 4095
    assert [round(float(data[i][0].mean()) * 4095, -2) for i in range(4)] == [400, 4000, 200, 3000]
    assert MaskedImageFolder(root, white=65535)[1][0].mean() < 0.07


@pytest.mark.parametrize("ending", [".tif", ".gif", ".png"])
def test_several_objects_on_pages_are_not_taken_for_one(tmp_path, ending):
    def write(path, i):
        pages = [Image.fromarray(np.roll(INSIDE, 3 * k, 1).astype(np.uint8) * 255) for k in range(3)]
        pages[0].save(path.with_suffix(ending), save_all=True, append_images=pages[1:])

    data = MaskedImageFolder(make(tmp_path, lambda path, i: grey(lambda _: INSIDE * 255)(path, i)))
    for path in (tmp_path / "masks").rglob("0.png"):
        path.unlink()
        write(path, 0)
    with pytest.raises(OSError, match=r"mask file .*0\.\w+: expected one mask, got 3 pages .*join them into one"):
        MaskedImageFolder(tmp_path)[0]
    with pytest.warns(UserWarning, match="skipped 2 of 8 images"):
        assert len(MaskedImageFolder(tmp_path, on_error="skip")) == len(data) - 2


def test_maps_of_whole_scenes_have_no_background_0(tmp_path):
    """Road is 0, sky and buildings are others, as in Cityscapes' train ids: nothing says what is behind what."""

    def scene(i):
        labels = np.zeros((20, 24), np.uint8)
        labels[:9], labels[:12, :5] = 10, 2
        return np.where(INSIDE, 13, labels)

    root = make(tmp_path, grey(scene))
    text = r"3 labels beside 0 cover \d+% of the pictures' edges: is 0 the background, or a class .*encoding=\"index\""
    with pytest.raises(MaskEncodingError, match=text):
        MaskedImageFolder(root)
    np.testing.assert_array_equal(MaskedImageFolder(root, foreground=[13])[0][2][0].numpy() > 0.5, INSIDE)
    np.testing.assert_array_equal(MaskedImageFolder(root, encoding="index")[0][2][0].numpy() > 0.5, scene(0) > 0)
    several = grey(lambda i: np.where(INSIDE, i % 4 + 1, 0))  # objects of four classes, at no edge
    assert len(MaskedImageFolder(make(tmp_path / "objects", several))) == 8


def test_a_mask_of_another_size_says_what_to_do(tmp_path):
    root = make(tmp_path, grey(lambda i: INSIDE[::2, ::2] * 255))
    with pytest.raises(ValueError, match=r"got \(10, 12\); resize the mask to it \(nearest neighbour"):
        MaskedImageFolder(root, size=16)[0]
    root = make(tmp_path / "other", grey(lambda i: INSIDE[:, :12] * 255))
    with pytest.raises(ValueError, match=r"got \(20, 12\); they have other shapes: was the mask drawn on another"):
        MaskedImageFolder(root)[0]


def plain(path, inside, label=255, ending=".png"):
    Image.fromarray(inside.astype(np.uint8) * np.uint8(label)).save(path.with_suffix(ending))


def test_masks_of_one_class_that_are_inverted_are_refused(tmp_path):
    """Half of the masks cover what is background in the others: a gap was measured all the same."""
    make(tmp_path, lambda path, i: plain(path, ~INSIDE if path.parent.name == "dog" else INSIDE))
    text = (
        r"4 cover every border and leave background inside, unlike the others \(dog/.*\): inverted\? Turn these round"
    )
    with pytest.raises(MaskEncodingError, match=text):
        MaskedImageFolder(tmp_path)


def test_a_few_inverted_masks_are_named(tmp_path):
    make(tmp_path, lambda path, i: plain(path, INSIDE ^ ((path.parent.name, i) == ("dog", 2))))
    with pytest.warns(UserWarning, match=r"1 cover every border and .* \(dog/2.png\): inverted\? Their objects would"):
        assert len(MaskedImageFolder(tmp_path)) == 8


def cut_out(path, transparent, dark):
    """A quantised picture whose background is transparent; ``dark``: an index of the object is 0, black."""
    index = np.where(INSIDE, 1 + np.arange(INSIDE.size).reshape(INSIDE.shape) % 90, transparent)
    index[8, 8] = 0 if dark else index[8, 8]
    picture = Image.fromarray(index.astype(np.uint8), "P")
    colours = np.random.default_rng(0).integers(30, 250, (256, 3))
    colours[0] = 0
    picture.putpalette(colours.ravel().tolist())
    picture.save(path.with_suffix(".png"), transparency=transparent)


def test_the_edge_of_a_cut_out_is_no_label(tmp_path):
    """Shades that form areas in a grey file may be labels; of transparency they are shares, in a file alone too."""
    alpha = np.zeros(INSIDE.shape, np.uint8)
    alpha[INSIDE] = 255
    rows, columns = np.nonzero(INSIDE)
    alpha[rows.min(), INSIDE[rows.min()]], alpha[:, columns.max()] = 3, np.where(INSIDE[:, columns.max()], 128, 0)
    picture = np.random.default_rng(0).integers(0, 255, (*INSIDE.shape, 3), np.uint8)
    cut = Image.fromarray(np.dstack([picture, alpha]), "RGBA")
    cut.save(tmp_path / "alone.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "alone.png")[0].numpy(), alpha)
    data = MaskedImageFolder(make(tmp_path / "many", lambda path, i: cut.save(path.with_suffix(".png"))))
    np.testing.assert_array_equal((255 * data[0][2][0].numpy()).round(), alpha)


@pytest.mark.parametrize("dark", [False, True])
def test_transparency_of_a_palette_that_says_something_else_is_not_passed_over(tmp_path, dark):
    """Its last index was void and its first background, whichever of them nobody sees."""
    make(tmp_path, lambda path, i: cut_out(path, 255, dark))
    for data in (MaskedImageFolder(tmp_path), MaskedImageFolder(tmp_path, encoding="alpha")):
        assert not data.has_void
        np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)


def test_transparency_and_labels_that_are_two_masks_are_refused(tmp_path):
    def write(path, i):
        picture = Image.fromarray((np.roll(INSIDE, 6, 1) + 2 * INSIDE).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 255, 0, 0] * 2)
        picture.save(path.with_suffix(".png"), transparency=b"\0\0\xff\xff")

    with pytest.raises(MaskEncodingError, match=r"transparency and colours that say different things .*alpha"):
        MaskedImageFolder(make(tmp_path, write))


@pytest.mark.parametrize("ending", [".avif", ".jp2"])
def test_labels_in_lossy_files_are_refused(tmp_path, ending):
    """What compression adds to 0 was object."""
    make(tmp_path, lambda path, i: plain(path, INSIDE, 3, ending))
    with pytest.raises(MaskEncodingError, match="a JPEG, or another lossy file, with values up to .* save the masks"):
        MaskedImageFolder(tmp_path)
