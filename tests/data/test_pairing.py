"""Which mask belongs to which image: suffixes, Unicode forms, previews, links, classes; what is said when none does."""

from __future__ import annotations

import json
import os
import shutil
import time
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.data.pairing import pair

INSIDE = np.zeros((20, 24), bool)
INSIDE[5:15, 6:14] = True


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        for i in range(3):
            add(tmp_path, name, str(i), seed=10 * k + i)
    return tmp_path


def add(root, name, stem, seed=0):
    for part in ("images", "masks"):
        (root / part / name).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 200, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(root / f"images/{name}/{stem}.png")
    Image.fromarray(INSIDE.astype(np.uint8) * 255).save(root / f"masks/{name}/{stem}.png")


def opened_in_silence(root, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = MaskedImageFolder(root, **options)
    for i in range(len(data)):
        np.testing.assert_array_equal(data[i][2][0].numpy() > 0.5, INSIDE)
    return data


def rename_masks(root, rename):
    for path in list((root / "masks").rglob("*.png")):
        rename(path)


@pytest.mark.parametrize("suffix", ["_mask", "msk", ".seg"])
def test_a_suffix_is_proposed_and_taken(folder, suffix):
    rename_masks(folder, lambda path: path.rename(path.with_name(f"{path.stem}{suffix}.png")))
    text = rf'6 of 6 images have no mask: .*masks/cat holds 0{suffix}.png, .*: pass mask_suffix="{suffix}"'
    with pytest.raises(FileNotFoundError, match=text):
        MaskedImageFolder(folder)
    assert len(opened_in_silence(folder, mask_suffix=suffix)) == 6


def test_several_masks_an_image_are_not_taken_for_one(folder):
    """Left and right lung, one file each."""
    for path in list((folder / "masks").rglob("*.png")):
        for side in ("_left", "_right"):
            shutil.copy(path, path.with_name(f"{path.stem}{side}.png"))
        path.unlink()
    text = r'masks/cat holds 0_left.png, 0_right.png, .* several an image \("_left", "_right"\): join them'
    with pytest.raises(FileNotFoundError, match=text):
        MaskedImageFolder(folder)


def test_masks_beside_the_images(folder):
    for path in list((folder / "masks").rglob("*.png")):
        path.rename(folder / "images" / path.parent.name / f"{path.stem}_mask.png")
    shutil.rmtree(folder / "masks")
    with pytest.raises(FileNotFoundError, match=r'images/cat holds 0_mask.png, .*: pass mask_suffix="_mask"'):
        MaskedImageFolder(folder)
    assert len(opened_in_silence(folder, mask_suffix="_mask")) == 6


def test_names_with_the_image_s_ending_and_arrays_are_found(folder):
    rename_masks(folder, lambda path: path.rename(path.with_name(path.name + ".png")))
    assert len(opened_in_silence(folder)) == 6
    for path in list((folder / "masks/cat").iterdir()):
        np.save(path.with_name(path.name.split(".")[0] + ".npy"), INSIDE)
        path.unlink()
    assert len(opened_in_silence(folder)) == 6


def test_names_in_two_unicode_forms_are_one(folder):
    for part, form in (("images", "NFD"), ("masks", "NFC")):
        old = folder / part / "cat"
        (old / "0.png").rename(old / f"{unicodedata.normalize(form, 'é')}.png")
        old.rename(folder / part / unicodedata.normalize(form, "chaton mâle"))
    assert len(opened_in_silence(folder)) == 6


def test_a_preview_is_passed_over_and_counted(folder):
    Image.open(folder / "images/cat/0.png").save(folder / "masks/cat/0.jpg")
    with pytest.warns(UserWarning, match=r"1 masks have pictures of the same name .*: 0.png was taken, 0.jpg not"):
        data = MaskedImageFolder(folder)
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)


def test_two_masks_of_one_name_are_named(folder):
    Image.fromarray(~INSIDE).save(folder / "masks/cat/0.gif")
    with pytest.raises(ValueError, match=r"one mask of each name, got several for 1 images: 0.png: 0.gif, 0.png; join"):
        MaskedImageFolder(folder)
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 images: 0.png \(several masks: 0.gif, 0.png\)"):
        assert len(MaskedImageFolder(folder, on_error="skip")) == 5


def test_linked_folders_and_files_count(folder):
    for part in ("images", "masks"):
        shutil.move(folder / part / "dog", folder / f"{part}-elsewhere")
        os.symlink(folder / f"{part}-elsewhere", folder / part / "dog")
    os.symlink(folder / "images/cat/0.png", folder / "images/cat/9.png")
    os.symlink(folder / "masks/cat/0.png", folder / "masks/cat/9.png")
    assert len(opened_in_silence(folder)) == 7


@pytest.mark.parametrize(
    ("name", "holds", "kind"),
    [
        ("0.json", {"shapes": [], "imageHeight": 20, "imageWidth": 24}, "LabelMe"),
        ("coco.json", {"images": [], "annotations": [], "categories": []}, "COCO"),
        ("0.xml", "<annotation><filename>0.png</filename><object></object></annotation>", "PASCAL VOC"),
        ("0.json", {"size": [20, 24], "counts": "PPYo1"}, "run lengths"),
        ("all.xml", '<annotations><image id="0" name="0.png"></image></annotations>', "CVAT"),
        ("train.csv", "ImageId,EncodedPixels\n0.png,3 4 23 4 43 4\n1.png,\n", "starts and lengths of runs"),
        ("0.txt", "3 4 23 4 43 4 63 4", "starts and lengths of runs"),
        ("boxes.csv", "patientId;x;y;width;height\n0;10;10;9;9\n", "boxes in a table"),
        ("0.txt", "0 0 0 1 0 1 1 0 1\n", "YOLO"),
    ],
)
def test_annotations_beside_the_pictures_are_noticed(folder, name, holds, kind):
    shutil.rmtree(folder / "masks")
    (folder / "images/cat" / name).write_text(holds if isinstance(holds, str) else json.dumps(holds))
    (folder / "images/cat/other.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=rf"6 of 6 images have no mask: .*annotations \({kind}: {name}\)"):
        MaskedImageFolder(folder)


def test_numbers_in_a_table_are_no_runs(folder):
    shutil.rmtree(folder / "masks")
    (folder / "boxes.csv").write_text("image,box\n0.png,90 80 70 60 50 40\n1.png,3 4 23 4\n")
    np.savetxt(folder / "images/cat/0.txt", INSIDE, fmt="%d")  # which is no outline of YOLO's
    with pytest.raises(FileNotFoundError, match=r"6 of 6 images have no mask: [^;]*; add them, or make masks with"):
        MaskedImageFolder(folder)


def test_numbered_classes_say_that_torchvision_sorts_otherwise(tmp_path):
    for number in range(12):
        add(tmp_path, str(number), "0")
    with pytest.warns(UserWarning, match=r"numbers and are taken in their order, 0, 1, 2 and 9 more; torchvision's"):
        data = MaskedImageFolder(tmp_path)
    assert data.classes == [str(number) for number in range(12)]
    shutil.rmtree(tmp_path / "images/1")
    for number in (10, 11):
        shutil.rmtree(tmp_path / f"images/{number}")
    with pytest.warns(UserWarning, match=r"classes are the numbers 0, 2, 3, 4, 5 and 4 more, and class 0 has label 0"):
        MaskedImageFolder(tmp_path)


def test_classes_that_may_not_be_what_was_meant(folder):
    add(folder, "Cat", "0")
    (folder / "images/empty").mkdir()
    with (
        pytest.warns(UserWarning, match="classes 'Cat', 'cat' differ in capitals"),
        pytest.warns(UserWarning, match=r"empty of 4 class folders hold no pictures and still count as classes"),
    ):
        assert MaskedImageFolder(folder).classes == ["Cat", "cat", "dog", "empty"]


def test_parts_in_place_of_classes(tmp_path):
    add(tmp_path, "train/cat", "0")
    add(tmp_path, "val/cat", "0")
    text = r"one folder per class, got the parts train, val .*: train/images/<class>/"
    with pytest.raises(ValueError, match=text):
        MaskedImageFolder(tmp_path)
    add(tmp_path, "extra", "0")
    with pytest.raises(ValueError, match=text):
        MaskedImageFolder(tmp_path)
    assert MaskedImageFolder(tmp_path, classes=["extra", "train"]).classes == ["extra", "train"]


def test_a_train_is_a_class_among_others(tmp_path):
    for name in ("bus", "train"):
        add(tmp_path, name, "0")
    assert MaskedImageFolder(tmp_path).classes == ["bus", "train"]


def test_classes_two_folders_deep(tmp_path):
    for name in ("a/abbey", "a/airport", "b/bar"):
        add(tmp_path, name, "0")
    with pytest.warns(UserWarning, match=r'below the classes \(abbey, airport, bar\); .*classes=\["a/abbey", ...\]'):
        assert MaskedImageFolder(tmp_path).classes == ["a", "b"]
    data = opened_in_silence(tmp_path, classes=["a/abbey", "a/airport", "b/bar"])
    assert data.labels == [0, 1, 2]


def test_names_with_numbers_say_that_they_are_text(tmp_path):
    for name in ("class_2", "class_10", "class_1"):
        add(tmp_path, name, "x")
    with pytest.warns(UserWarning, match=r"order of their names as text, class_1, class_10, class_2.* pass classes="):
        data = MaskedImageFolder(tmp_path)
    assert data.classes == ["class_1", "class_10", "class_2"]
    assert opened_in_silence(tmp_path, classes=["class_1", "class_2", "class_10"]).labels == [0, 1, 2]


def test_what_lies_where_masks_were_looked_for_is_named(folder):
    (folder / "masks/dog").rename(folder / "masks/Dog")
    with pytest.raises(FileNotFoundError, match=r"masks/Dog/0.png differs in capitals only: rename it"):
        MaskedImageFolder(folder)
    (folder / "masks/Dog").rename(folder / "masks/dog")
    for path in sorted((folder / "masks/cat").iterdir()):
        path.rename(path.with_name(f"mask_{path.name}"))
    with pytest.raises(FileNotFoundError, match=r"masks/cat holds mask_0.png: rename masks as their images"):
        MaskedImageFolder(folder)
    (folder / "masks").rename(folder / "annotations")
    with pytest.raises(FileNotFoundError, match="but annotations: if it holds the masks, pass masks=.* or rename it$"):
        MaskedImageFolder(folder)


def test_a_folder_of_masks_with_a_suffix_under_another_name(folder):
    """MVTec AD's ground_truth: both options are said at once, and what is said opens the folder."""
    rename_masks(folder, lambda path: path.rename(path.with_name(f"{path.stem}_mask.png")))
    (folder / "masks").rename(folder / "ground_truth")
    truth = folder / "ground_truth"
    text = rf'pass masks="{truth}"; {truth}/cat holds 0_mask.png, 1_mask.png, 2_mask.png: pass mask_suffix="_mask"'
    with pytest.raises(FileNotFoundError, match=text):
        MaskedImageFolder(folder)
    with pytest.raises(FileNotFoundError, match=rf'have no mask: {truth}/cat/0.png, .*: pass mask_suffix="_mask"'):
        MaskedImageFolder(folder, masks=truth)
    assert len(opened_in_silence(folder, masks=truth, mask_suffix="_mask")) == 6


def test_maps_in_which_0_is_a_class_are_noticed(folder):
    """As Cityscapes' train ids: 0 is the road, 255 void, and every pixel has a class."""
    for path in (folder / "masks").rglob("*.png"):
        values = np.full((20, 24), 7, np.uint8)
        values[INSIDE], values[:2], values[:, :3] = 0, 255, 11
        Image.fromarray(values).save(path)
    with pytest.raises(ValueError, match=r"inverted\? Say .* 0 is a class as others are, foreground="):
        MaskedImageFolder(folder)
    data = opened_in_silence(folder, foreground=[0], with_void=False)
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)
    assert data.void(0).sum() == 2 * (24 - 3)


def test_masks_without_folders_of_classes(folder):
    rename_masks(folder, lambda path: path.rename(folder / "masks" / path.name))
    with pytest.raises(FileNotFoundError, match=r"masks holds 0.png, 1.png, 2.png itself: move masks into folders of"):
        MaskedImageFolder(folder)


def test_masks_in_a_format_that_is_not_read(folder):
    rename_masks(folder, lambda path: path.rename(path.with_suffix(".h5")))
    with pytest.raises(FileNotFoundError, match=r"masks/cat holds 0.h5, which is not read: save masks as PNG or .npy$"):
        MaskedImageFolder(folder)
    for path in list((folder / "masks").rglob("*.h5")):
        path.rename(path.with_suffix(".nii.gz"))
    with pytest.raises(FileNotFoundError, match=r"cat holds 0.nii.gz, which is not read: .*get_fdata\(\).* x before y"):
        MaskedImageFolder(folder)
    for path in list((folder / "masks").rglob("*.nii.gz")):
        path.rename(path.with_name(f"{path.name.split('.')[0]}_seg.nii.gz"))
    with pytest.raises(FileNotFoundError, match=r"cat holds 0_seg.nii.gz, which is not read: .*nibabel"):
        MaskedImageFolder(folder)
    for path in list((folder / "masks").rglob("*.nii.gz")):
        path.rename(path.with_name(f"mask{path.name.split('_')[0]}.png"))
    with pytest.raises(FileNotFoundError, match=r"masks/cat holds mask0.png, mask1.png, mask2.png; add them"):
        MaskedImageFolder(folder)


def test_masks_that_are_left_over_are_counted(folder):
    (folder / "images/cat/1.png").unlink()
    with pytest.warns(UserWarning, match=r"1 masks have no image of their name: 1.png"):
        assert len(MaskedImageFolder(folder)) == 5


def test_one_picture_in_two_formats_is_noticed(folder):
    with Image.open(folder / "images/cat/1.png") as picture:
        picture.save(folder / "images/cat/1.jpg")
    with pytest.warns(UserWarning, match=r"2 images share a mask with another one of the same name: 1.jpg, 1.png; if"):
        assert len(MaskedImageFolder(folder)) == 7


def test_classes_are_names_of_folders_each_once(folder):
    with pytest.raises(TypeError, match=r"classes: expected a list of names of folders, got 'cat'"):
        MaskedImageFolder(folder, classes="cat")
    with pytest.raises(ValueError, match=r"classes: expected each name once, got cat more often"):
        MaskedImageFolder(folder, classes=["cat", "cat"])
    (folder / "images/cat").rename(folder / "images/7")
    (folder / "masks/cat").rename(folder / "masks/7")
    assert MaskedImageFolder(folder, classes=[7]).classes == ["7"]


def test_a_folder_of_another_name_shows_what_is_there(folder):
    (folder / "images").rename(folder / "Images")
    with pytest.raises(FileNotFoundError, match=r"found no folder .*images; it holds Images, masks"):
        MaskedImageFolder(folder)


def test_names_that_differ_in_blanks_are_noticed(folder):
    add(folder, " cat", "9")
    with pytest.warns(UserWarning, match=r"the classes ' cat', 'cat' differ in capitals or blanks only; are they one"):
        MaskedImageFolder(folder)


@pytest.mark.parametrize("name", ["{}_1", "{} (1)", "{}-2"])
def test_masks_of_several_instances_are_no_mask_of_the_image(folder, name):
    """One of them was taken for the whole, and the others left over."""
    for i in (0, 2):
        shutil.copy(folder / f"masks/cat/{i}.png", folder / f"masks/cat/{name.format(i)}.png")
    with pytest.raises(ValueError, match=r"several for 2 images: 0.png: 0.png, 0.*; join those of one image into one"):
        MaskedImageFolder(folder)
    with pytest.warns(UserWarning, match="skipped 2 of 6 images"):
        data = MaskedImageFolder(folder, on_error="skip")
    assert [sample.image.name for sample in data.samples if sample.label == 0] == ["1.png"]


def test_a_mask_whose_image_is_missing_is_no_instance(folder):
    for name in ("a", "a_1", "a_2"):
        add(folder, "cat", name)
    (folder / "images/cat/a_2.png").unlink()
    with pytest.warns(UserWarning, match="1 masks have no image of their name: a_2.png"):
        assert len(MaskedImageFolder(folder)) == 8


def test_blanks_at_the_end_of_a_folder_are_named(folder):
    (folder / "masks/dog").rename(folder / "masks/Dog ")
    with pytest.raises(FileNotFoundError, match=r"masks/Dog /0.png differs in blanks or capitals only: rename it"):
        MaskedImageFolder(folder)


def test_many_classes_are_paired_as_fast_as_their_pictures_are_listed(tmp_path):
    """Every class looked through the pictures of all before it: a minute for 10 pictures each of 1000 classes."""
    classes = [f"class{number:03d}" for number in range(400)]
    for part in ("images", "masks"):
        for name in classes:
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                (tmp_path / part / name / f"{i}.png").touch()
    start = time.process_time()
    assert len(pair(tmp_path, classes).samples) == 2000
    assert time.process_time() - start < 1.5
