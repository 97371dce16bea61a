"""`MaskedImageFolder`: layout, items, resizing in step, and a written answer to every broken folder."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from torch_bgdebias.data import MaskedImageFolder, MaskSizeError, UnreadableImageError


def picture(path, size=(12, 16), value=None, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) if value is None else None
    Image.fromarray(np.full(shape, value, np.uint8) if pixels is None else pixels).save(path)
    return path


def mask(path, size=(12, 16), box=(3, 4, 9, 12), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = value
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        for i in range(3):
            picture(tmp_path / "images" / name / f"{i}.png", seed=10 * k + i)
            mask(tmp_path / "masks" / name / f"{i}.png")
    return tmp_path


def test_items_and_attributes(folder):
    data = MaskedImageFolder(folder)
    assert data.classes == ["cat", "dog"]
    assert data.class_to_idx == {"cat": 0, "dog": 1}
    assert data.labels == [0, 0, 0, 1, 1, 1]
    assert len(data) == 6
    image, label, cover = data[4]
    stored = np.array(Image.open(folder / "images/dog/1.png"))
    torch.testing.assert_close(image, torch.from_numpy(stored).permute(2, 0, 1).float() / 255)
    assert label == 1
    assert cover.shape == (1, 12, 16)
    assert cover.sum() == 6 * 8
    assert data.samples[4].mask == folder / "masks/dog/1.png"


def test_batches_by_the_default_collate(folder):
    image, label, cover = next(iter(DataLoader(MaskedImageFolder(folder, size=(8, 10)), batch_size=4, num_workers=2)))
    assert (image.shape, image.dtype) == ((4, 3, 8, 10), torch.float32)
    assert (label.shape, label.dtype) == ((4,), torch.int64)
    assert (cover.shape, cover.dtype) == ((4, 1, 8, 10), torch.float32)
    assert cover.min() == 0
    assert cover.max() == 1


def test_any_ending_and_subfolders_pair_by_name(tmp_path):
    picture(tmp_path / "images/a/sub/x.JPEG")
    mask(tmp_path / "masks/a/sub/x.bmp")
    picture(tmp_path / "images/a/y.webp")
    mask(tmp_path / "masks/a/y.png")
    (tmp_path / "images/a/notes.txt").write_text("not a picture")
    (tmp_path / "images/a/.hidden.png").write_text("not a picture")
    assert len(MaskedImageFolder(tmp_path)) == 2


def test_tensors_equal_the_items(folder):
    data = MaskedImageFolder(folder, size=8)
    tensors = data.tensors()
    assert tensors.images.dtype == tensors.masks.dtype == torch.uint8
    again = tensors.dataset()
    for i in range(len(data)):
        for one, other in zip(data[i], again[i], strict=True):
            assert one == other if isinstance(one, int) else torch.equal(one, other)
    assert len(tensors.subset(tensors.labels == 1).images) == 3


def test_tensors_of_several_sizes_need_a_size(folder):
    picture(folder / "images/cat/big.png", size=(20, 20))
    mask(folder / "masks/cat/big.png", size=(20, 20))
    with pytest.raises(ValueError, match=r"size: expected \(H, W\) to stack images of 2 sizes, got None"):
        MaskedImageFolder(folder).tensors()
    assert MaskedImageFolder(folder, size=8).tensors().images.shape == (7, 3, 8, 8)


def test_transform_gets_image_and_mask_together(folder):
    data = MaskedImageFolder(folder, size=(12, 16), transform=lambda image, cover: (image.flip(2), cover.flip(2)))
    plain = MaskedImageFolder(folder, size=(12, 16))
    torch.testing.assert_close(data[0][0], plain[0][0].flip(2))
    torch.testing.assert_close(data[0][2], plain[0][2].flip(2))


def test_resizing_keeps_image_and_mask_in_step(tmp_path):
    for kind in ("images", "masks"):
        mask(tmp_path / kind / "a" / "x.png", size=(64, 48), box=(10, 8, 40, 30))
    image, _, cover = MaskedImageFolder(tmp_path, size=(16, 24))[0]
    torch.testing.assert_close(image[:1], cover)


@pytest.mark.parametrize("kind", ["grey", "sixteen", "palette", "alpha", "zero_one", "one_bit"])
def test_unusual_files_are_read(tmp_path, kind):
    image_path, mask_path = tmp_path / "images/a/x.png", tmp_path / "masks/a/x.png"
    picture(image_path, mode="L" if kind == "grey" else "RGB", seed=1)
    mask(mask_path, value=1 if kind == "zero_one" else 255)
    if kind == "sixteen":
        Image.fromarray(np.array(Image.open(image_path).convert("L")).astype(np.uint16) << 8).save(image_path)
    if kind == "palette":
        Image.open(mask_path).point(lambda v: v // 255).save(mask_path)
        indices = Image.open(mask_path)
        indices.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
        indices.save(mask_path)
        assert Image.open(mask_path).mode == "P"
    if kind == "alpha":
        Image.open(image_path).convert("RGBA").save(image_path)
    if kind == "one_bit":
        Image.open(mask_path).convert("1").save(mask_path)
    image, _, cover = MaskedImageFolder(tmp_path)[0]
    assert image.shape == (3, 12, 16)
    assert image.std() > 0.1
    assert cover.unique().tolist() == [0, 1]
    assert cover.sum() == 48


def test_soft_masks_stay_soft(folder):
    mask(folder / "masks/cat/0.png", value=128)
    torch.testing.assert_close(MaskedImageFolder(folder)[0][2].max(), torch.tensor(128 / 255))


def test_masks_without_an_object_are_told_where_they_are_many(folder):
    """A swap leaves nothing of such a picture, and its label stands beside another one's background."""
    paths = sorted((folder / "masks").rglob("*.png"))
    Image.new("L", Image.open(paths[0]).size).save(paths[0])
    with pytest.warns(UserWarning, match=rf"1 of {len(paths)} masks that were looked at hold no object"):
        MaskedImageFolder(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MaskedImageFolder(folder, min_foreground=0.001)) == len(paths) - 1


def test_min_foreground_filters_and_counts(folder):
    mask(folder / "masks/dog/0.png", box=(0, 0, 1, 1))
    mask(folder / "masks/dog/1.png", box=(0, 0, 0, 0))
    data = MaskedImageFolder(folder, min_foreground=0.1)
    assert (len(data), data.filtered) == (4, 2)
    assert data.classes == ["cat", "dog"]
    with pytest.raises(ValueError, match=r"no sample is left \(0 skipped .*, 6 with less foreground than"):
        MaskedImageFolder(folder, min_foreground=0.9)


def test_objects_that_fill_the_image_are_left_out(folder):
    shares = [float(item[2].mean()) for item in MaskedImageFolder(folder)]
    mask(folder / "masks/dog/0.png", box=(0, 0, 100, 100))
    data = MaskedImageFolder(folder, min_foreground=0.04, max_foreground=0.64)
    assert all(0.04 <= share <= 0.64 for share in shares)
    assert (len(data), data.filtered) == (5, 1)
    with pytest.raises(ValueError, match=r"max_foreground: expected at least min_foreground \(0.5\), got 0.4"):
        MaskedImageFolder(folder, min_foreground=0.5, max_foreground=0.4)


def test_classes_choose_and_order(folder):
    data = MaskedImageFolder(folder, classes=["dog"])
    assert data.class_to_idx == {"dog": 0}
    assert len(data) == 3
    with pytest.raises(ValueError, match=r"classes: cow not in .*images, which has cat, dog"):
        MaskedImageFolder(folder, classes=["cow", "dog"])


def test_folder_without_masks_lists_what_is_missing(folder):
    for path in (folder / "masks").rglob("*.png"):
        path.unlink()
    text = r"6 of 6 images have no mask: masks/cat/0.png, .*masks/dog/1.png and 1 more; .*bgdebias masks"
    for on_error in ("raise", "skip"):
        with pytest.raises(FileNotFoundError, match=text):
            MaskedImageFolder(folder, on_error=on_error)


def test_one_missing_mask(folder):
    (folder / "masks/dog/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 images have no mask: masks/dog/2.png;"):
        MaskedImageFolder(folder)
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 images: 2.png \(no mask\)"):
        data = MaskedImageFolder(folder, on_error="skip")
    assert len(data) == 5
    assert data.skipped == [(folder / "images/dog/2.png", "no mask")]


def breaks(folder):
    """One file of each kind that cannot be read."""
    jpeg = picture(folder / "images/cat/cut.jpg", size=(64, 64))
    jpeg.write_bytes(jpeg.read_bytes()[:700])
    png = picture(folder / "images/cat/cut2.png", size=(64, 64))
    png.write_bytes(png.read_bytes()[:3000])
    (folder / "images/cat/text.png").write_text("this is no picture")
    (folder / "images/cat/empty.jpg").write_bytes(b"")
    for name in ("cut", "cut2", "text", "empty"):
        mask(folder / f"masks/cat/{name}.png", size=(64, 64))
    bad_mask = mask(folder / "masks/dog/0.png")
    bad_mask.write_bytes(bad_mask.read_bytes()[:40])


def test_unreadable_files_are_named(folder):
    breaks(folder)
    data = MaskedImageFolder(folder)
    named = []
    for i in range(len(data)):
        try:
            data[i]
        except UnreadableImageError as error:
            named.append(str(error))
    assert len(named) == 5
    for name in ("cat/cut.jpg", "cat/cut2.png", "cat/text.png", "cat/empty.jpg", "masks/dog/0.png"):
        assert sum(name in text for text in named) == 1, name


def test_unreadable_files_are_skipped_with_a_count(folder):
    breaks(folder)
    with pytest.warns(UserWarning, match=r"skipped 5 of 10 images: .* and 2 more"):
        data = MaskedImageFolder(folder, size=8, on_error="skip")
    assert len(data) == 5
    assert len(data.skipped) == 5
    assert all("unreadable image file" in reason for _, reason in data.skipped)
    assert len(list(DataLoader(data, batch_size=2))) == 3


def test_nothing_is_skipped_without_a_reason(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MaskedImageFolder(folder, on_error="skip")) == 6


def test_mask_of_another_size_is_named(folder):
    mask(folder / "masks/dog/1.png", size=(12, 15))
    data = MaskedImageFolder(folder, size=8)
    with pytest.raises(
        MaskSizeError,
        match=r"mask .*masks/dog/1.png: expected the size \(12, 16\) \(H, W\) of its image.*got \(12, 15\)",
    ):
        data[4]
    with pytest.warns(UserWarning, match="skipped 1 of 6"):
        assert len(MaskedImageFolder(folder, size=8, on_error="skip")) == 5


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"size": 0}, ValueError, r"size: expected a positive int or \(H, W\), got 0"),
        ({"size": (8, 8, 8)}, ValueError, r"size: expected a positive int or \(H, W\), got \(8, 8, 8\)"),
        ({"size": (8.0, 8)}, ValueError, r"size: expected"),
        ({"on_error": "ignore"}, ValueError, r"on_error: expected one of 'raise', 'skip', got 'ignore'"),
        ({"min_foreground": 1.5}, ValueError, r"min_foreground: expected a share in \[0, 1\], got 1.5"),
        ({"maskdir": "x"}, TypeError, "maskdir"),
    ],
)
def test_bad_arguments(folder, arguments, error, text):
    with pytest.raises(error, match=text):
        MaskedImageFolder(folder, **arguments)


def test_folders_of_classes_without_images_around_them_are_told_where_to_go(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    text = "if cat, dog are classes, say masks= .*MASKS/cat/x.png for .*move them into a folder .*images, with"
    with pytest.raises(FileNotFoundError, match=text):
        MaskedImageFolder(tmp_path)


@pytest.mark.parametrize("place", ["outside", "inside", "beside"])
def test_class_folders_in_the_root_where_masks_are_said_to_lie_elsewhere(folder, tmp_path_factory, place):
    """As torchvision's ImageFolder has them."""
    wanted = MaskedImageFolder(folder)
    root = tmp_path_factory.mktemp("bare") / "pictures"
    shutil.copytree(folder / "images", root)
    masks = {"outside": root.parent / "cover", "inside": root / "cover", "beside": root}[place]
    for path in (folder / "masks").rglob("*.png"):
        target = masks / path.parent.name / (path.name if place != "beside" else f"{path.stem}_mask.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    data = MaskedImageFolder(root, **({"mask_suffix": "_mask"} if place == "beside" else {"masks": masks}))
    assert (data.classes, data.labels) == (wanted.classes, wanted.labels)
    assert data.image_root == root
    assert wanted.image_root == folder / "images"
    for one, other in zip(data, wanted, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[2], other[2])
    (root / "cat" / "1.png").rename(root / "cat" / "further.png")
    with pytest.raises(FileNotFoundError, match=r"\d of \d images have no mask: .*cat/further((?!if it holds).)*$"):
        MaskedImageFolder(root, **({"mask_suffix": "_mask"} if place == "beside" else {"masks": masks}))


def test_folders_that_are_not_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected images/<class>/ and masks/<class>/ in it, found no folder"):
        MaskedImageFolder(tmp_path / "absent")
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="expected one folder per class, found none"):
        MaskedImageFolder(tmp_path)
    (tmp_path / "images/cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image files in 1 class folder"):
        MaskedImageFolder(tmp_path)


def test_real_folder(shared_data):
    data = MaskedImageFolder(shared_data("voc_objects"), size=64)
    assert len(data) == 693
    assert len(data.classes) == 19
    image, label, cover = data[100]
    assert (image.shape, cover.shape) == ((3, 64, 64), (1, 64, 64))
    assert 0 <= label < 19


def test_what_the_share_of_foreground_leaves_out_is_counted(folder):
    """Of 12 x 16 pixels the masks are 48, a quarter."""
    assert MaskedImageFolder(folder).filtered == 0
    mask(folder / "masks" / "cat" / "0.png", box=(0, 0, 12, 16))
    assert MaskedImageFolder(folder).filtered == 0
    assert len(MaskedImageFolder(folder)) == 6, "a foreground may be the whole picture"
    less = MaskedImageFolder(folder, max_foreground=0.5)
    assert (less.filtered, len(less)) == (1, 5)
