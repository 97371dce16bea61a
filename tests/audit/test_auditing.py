"""Cues that were planted are named, noise is not, and input that cannot be audited is refused or counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.audit import AuditSettings, audit
from torch_bgdebias.data import MaskedImageFolder

QUICK = AuditSettings(permutations=199, examples=4)
SIDE = 32


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 180, (count, SIDE, SIDE, 3), dtype=np.uint8)


def mask() -> np.ndarray:
    plane = np.zeros((SIDE, SIDE), np.uint8)
    plane[10:22, 10:22] = 255
    return plane


def write(root, pictures, labels, *, masks=True, ending="png", **options):
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        for part, values in (("images", picture), ("masks", mask())):
            path = root / part / f"class{label}" / f"{number:03}.{ending if part == 'images' else 'png'}"
            if part == "images" or masks:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path, **(options if part == "images" else {}))
    return root


def tensors(pictures, labels):
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return TensorDataset(image, torch.as_tensor(labels), torch.from_numpy(mask() / 255.0).expand(len(image), 1, -1, -1))


def named(report):
    return {finding.reading.cue.name for finding in report.findings}


LABELS = np.repeat([0, 1], 40)


def test_objects_that_differ_are_no_finding_about_backgrounds(tmp_path):
    pictures = noise(80)
    pictures[LABELS == 1, 12:20, 12:20] = 250
    report = audit(write(tmp_path, pictures, LABELS), settings=QUICK)
    assert report.masked
    assert {finding.reading.cue.kind for finding in report.findings} <= {"whole"}
    assert "Nothing outside the object" in report.summary()


def test_a_mark_in_the_corner_is_named_placed_and_shown(tmp_path):
    pictures = noise(80)
    marked = np.flatnonzero(LABELS == 1)[:20]
    pictures[marked, :8, -8:] = 255
    report = audit(write(tmp_path, pictures, LABELS), settings=QUICK)
    assert "corners" in named(report)
    corners = next(finding for finding in report.findings if finding.reading.cue.name == "corners")
    assert {g.index for g in corners.giveaways if g.label == 1} <= set(marked.tolist())
    assert 20 <= corners.reading.apart <= 23  # nine in ten are enough
    assert corners.reading.p_value == pytest.approx(1 / 200)
    assert corners.reading.area.low > 0.5
    row, column = np.unravel_index(np.nanargmax(report.maps[1]), (12, 12))
    assert row < 3
    assert column > 8


def test_three_classes_and_the_one_with_a_tint():
    labels = np.repeat([0, 1, 2], 30)
    pictures = noise(90)
    pictures[labels == 2, ..., 0] += 20
    report = audit(tensors(pictures, labels), settings=QUICK)
    sure = [f.reading for f in report.findings if f.reading.cue.name in ("colours", "light")]
    assert max(sure, key=lambda r: r.area.value).label == 2
    assert report.spoken(2) == "class 2"
    assert report.classes == ("class 0", "class 1", "class 2")


def test_what_every_class_has_a_little_of_is_seen_in_all_together():
    """Each of six classes has its own shade in a third of its pictures."""
    labels = np.arange(150) % 6
    pictures = noise(150).astype(int)
    for label in range(6):
        some = np.flatnonzero(labels == label)[:8]
        pictures[some] += np.array([[9, 0, 0], [-9, 0, 0], [0, 9, 0], [0, -9, 0], [0, 0, 9], [0, 0, -9]])[label]
    report = audit(tensors(pictures.clip(0, 255).astype(np.uint8), labels), settings=QUICK)
    together = [f.reading for f in report.findings if f.reading.label == -1]
    assert together
    assert report.spoken(-1) == "all classes"
    assert all(reading.apart == 0 for reading in together)
    assert report.labels == list(range(6))
    assert "6 of 6 classes can be told by what is not the object" in report.summary()  # each has a row of its own


def test_compression_and_size(tmp_path):
    pictures = noise(80)
    write(tmp_path, pictures[:40], LABELS[:40], masks=False, ending="jpg", quality=70)
    for number, picture in enumerate(pictures[40:]):
        path = tmp_path / "images" / "class1" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, : SIDE - 4 * (number % 3)]).save(path, quality=90)
    report = audit(tmp_path, settings=QUICK)
    assert not report.masked
    assert {"compression", "size"} <= named(report)
    assert "There are no masks" in report.summary()


def test_columns_and_groups(tmp_path):
    write(tmp_path, noise(80), LABELS)
    site = {f"class{label}/{n:03}.png": "AB"[int((n % 10 < 8) == label)] for n, label in enumerate(LABELS)}
    patients = {name: int(name[7:10]) // 4 for name in site}
    report = audit(tmp_path, columns={"site": site}, groups=patients, settings=QUICK)
    assert named(report) == {"column site"}
    assert report.findings[0].reading.cue.title == "“site”"
    with pytest.raises(ValueError, match="site: expected values by file name, such as class0/000.png"):
        audit(tmp_path, columns={"site": {"other": 1}}, settings=QUICK)
    with pytest.raises(ValueError, match="groups: expected a pattern that fits file names"):
        audit(tmp_path, groups="xyz(\\d)", settings=QUICK)


def test_groups_keep_copies_from_passing_for_a_cue():
    """Ten pictures, eight times each: without groups the copies tell the class, with groups they do not."""
    base = noise(10)
    pictures = np.repeat(base, 8, axis=0)
    labels = np.repeat(np.arange(10) % 2, 8)
    with pytest.raises(ValueError, match="class 0: 5"):  # five groups say nothing
        audit(tensors(pictures, labels), groups=np.repeat(np.arange(10), 8).tolist(), settings=QUICK)
    assert audit(tensors(pictures, labels), settings=QUICK).findings
    twenty, units = np.repeat(noise(20, seed=5), 4, axis=0), np.repeat(np.arange(20), 4)
    report = audit(tensors(twenty, units % 2), groups=units.tolist(), settings=QUICK)
    assert report.is_clean


def test_folder_dataset_and_loader_say_the_same(tmp_path):
    pictures = noise(60)
    labels = np.arange(60) % 2
    pictures[labels == 1, :, :4] = 250
    write(tmp_path, pictures, labels)
    data = MaskedImageFolder(tmp_path)
    order = [sample.image for sample in data.samples]
    ordered = pictures[[int(path.stem) for path in order]]
    items = tensors(ordered, np.array(data.labels))
    reports = [audit(given, settings=QUICK) for given in (tmp_path, data, items, DataLoader(items, 7))]
    maps = [report.maps[1] for report in reports]
    for plane in maps[1:]:
        np.testing.assert_allclose(plane, maps[0], atol=1e-5)
    assert all({"border", "layout"} <= named(report) for report in reports)


def test_sizes_and_modes_mix(tmp_path):
    for number in range(40):
        grey = (
            Image.fromarray(noise(1, number)[0])
            .resize((20 + number % 7, 24))
            .convert(["L", "RGB", "RGBA", "P"][number % 4])
        )
        path = tmp_path / f"class{number // 20}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        grey.save(path)
    assert audit(tmp_path, settings=QUICK).counts == (20, 20)


def test_unreadable_and_missing_are_counted(tmp_path):
    write(tmp_path, noise(60), np.arange(60) % 2)
    (tmp_path / "images" / "class0" / "000.png").write_bytes(b"broken")
    (tmp_path / "masks" / "class1" / "001.png").unlink()
    with pytest.warns(UserWarning, match="1 of 59 pictures cannot be read: 000.png"):
        report = audit(tmp_path, settings=QUICK)
    assert [name for name, _ in report.unreadable] == ["000.png"]
    assert list(report.left_out) == [("001.png", "no mask")]
    assert sum(report.counts) == 58


def test_small_classes_are_left_out_and_one_class_is_refused(tmp_path):
    labels = np.repeat([0, 1, 2], [20, 20, 3])
    report = audit(tensors(noise(43), labels), settings=QUICK)
    assert list(report.left_out) == [("class 2", "class of 3, too few")]
    assert report.counts == (20, 20, 0)
    write(tmp_path, noise(20), np.zeros(20, int))
    with pytest.raises(ValueError, match="expected at least two classes of 8 pictures .* class0: 20"):
        audit(tmp_path, settings=QUICK)


def test_a_part_is_looked_at_and_time_said_beforehand():
    lines = []
    data = tensors(noise(400), np.arange(400) % 2)
    report = audit(data, settings=AuditSettings(images=350, permutations=199), say=lines.append)
    assert lines[0] == "400 pictures, of which 350 are looked at (images= or --images for more)"
    assert lines[1].startswith("about ")
    assert sum(report.counts) == 350
    assert report.total == 400


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (3, TypeError, "dataset: expected a folder, a data set of .image, label. or a loader, got int 3"),
        ("no/such/folder", FileNotFoundError, "found no folder no/such/folder"),
        ([], ValueError, "dataset: expected pictures, got an empty one"),
        ([(torch.rand(3, 8, 8) * 5, 0)], ValueError, "image 0: expected values in .0, 1., or bytes"),
        ([(torch.rand(7, 8, 8), 0)], ValueError, r"image 0: expected \(3, H, W\)"),
        ([(torch.rand(3, 8, 8), 0.5)], TypeError, "label of item 0: expected one whole number"),
        ([(torch.rand(3, 8, 8), -1)], ValueError, "label: expected classes 0, 1, ..., got -1"),
        ([(torch.rand(3, 8, 8), 0, torch.rand(1, 4, 4))], ValueError, "mask 0: expected the image's size"),
        ([{"pixels": 1}], KeyError, "item: expected image and label in it, got pixels"),
        ([torch.rand(3, 8, 8)], TypeError, "item: expected .image, label."),
    ],
)
def test_what_cannot_be_audited(data, error, text):
    with pytest.raises(error, match=text):
        audit(data, settings=QUICK)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"images": 3}, "images: expected a whole number of at least 20"),
        ({"permutations": 9}, "permutations: expected a whole number of at least 99"),
        ({"level": 0.01, "permutations": 150}, "permutations: expected at least 200 for level 0.01, got 150"),
        ({"level": 1.0}, "level: expected a number in .0, 1."),
        ({"mean": [0.5]}, "mean, std: expected both"),
    ],
)
def test_settings_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        AuditSettings(**options)
