"""VOCdevkit's folders: label maps by class, numbers of objects with their XML, exporters' colours, damage."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.masks.contents import voc_palette
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.formats.outlines import AnnotationError, drawn
from torch_bgdebias.masks.formats.voc import VOC_CLASSES, read_voc, voc_folders, voc_objects

SIZE = (20, 30)
XML = (
    "<annotation><filename>{name}.jpg</filename><size><width>30</width><height>20</height><depth>3</depth></size>"
    "{things}</annotation>"
)
THING = (
    "<object><name>{label}</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8.5</ymax></bndbox></object>"
)


def palette_png(path, values):
    picture = Image.fromarray(values.astype(np.uint8))
    picture.putpalette(voc_palette().ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def label_map():
    """A bird (3) with a void edge beside a cow (10)."""
    values = np.zeros(SIZE)
    values[2:8, 3:9] = 255
    values[3:7, 4:8] = VOC_CLASSES.index("bird") + 1
    values[10:15, 20:28] = VOC_CLASSES.index("cow") + 1
    return values


@pytest.fixture
def devkit(tmp_path):
    year = tmp_path / "VOCdevkit" / "VOC2012"
    palette_png(year / "SegmentationClass" / "2007_1.png", label_map())
    (year / "Annotations").mkdir()
    (year / "Annotations" / "2007_1.xml").write_text(XML.format(name="2007_1", things=THING.format(label="bird")))
    return tmp_path


def test_a_class_is_its_own_label_and_void_is_neither(devkit):
    for kind in ("bird", "cow"):
        path = devkit / "images" / kind / "2007_1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((*SIZE, 3), ord(kind[0]), np.uint8)).save(path)
        # one picture may be in one class alone: the other annotations of that name would be its too
        data = MaskedImageFolder(devkit, masks=devkit / "VOCdevkit", classes=[kind])
        np.testing.assert_array_equal(data[0][2][0].numpy() > 0, label_map() == VOC_CLASSES.index(kind) + 1)
        np.testing.assert_array_equal(data.void(0)[0].numpy(), label_map() == 255)
        assert data.has_void
        assert data.samples[0].mask == devkit / "VOCdevkit/VOC2012/SegmentationClass/2007_1.png"
    with pytest.raises(ValueError, match="such that fit two images: bird/2007_1.png and cow/2007_1.png"):
        MaskedImageFolder(devkit, masks=devkit / "VOCdevkit")


@pytest.mark.parametrize("place", ["VOCdevkit", "VOCdevkit/VOC2012", "."])
def test_the_layout_is_noticed_from_above_and_within(devkit, place):
    assert voc_folders(devkit / place) == [devkit / "VOCdevkit" / "VOC2012"]
    assert list(Annotations.of(devkit / place).pictures) == ["2007_1"]
    assert Annotations.of(devkit / place, {"other"}).pictures == {}


def test_numbers_of_objects_have_the_labels_of_their_xml(tmp_path):
    values = np.zeros(SIZE)
    values[2:5, 2:5], values[8:11, 8:11], values[0, 0] = 1, 2, 255
    palette_png(tmp_path / "SegmentationObject" / "a.png", values)
    with pytest.raises(AnnotationError, match=r"expected its objects' labels in .*Annotations/a.xml, which is not"):
        list(read_voc(tmp_path))
    (tmp_path / "Annotations").mkdir()
    xml = tmp_path / "Annotations" / "a.xml"
    xml.write_text(XML.format(name="a", things=THING.format(label="cat")))
    with pytest.raises(AnnotationError, match=r"has object 2, and .*a.xml lists 1 \(cat\)"):
        list(read_voc(tmp_path))
    xml.write_text(XML.format(name="a", things=THING.format(label="cat") + THING.format(label="dog")))
    ((_, picture),) = read_voc(tmp_path)
    by_label = {shape.label: drawn([shape], SIZE) for shape in picture.shapes}
    np.testing.assert_array_equal(by_label["cat"] == 1, values == 1)
    np.testing.assert_array_equal(by_label["dog"] == 1, values == 2)
    np.testing.assert_array_equal(by_label["void"] == 255, values == 255)


def test_exporters_say_their_own_colours(tmp_path):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[2:5, 2:5], pixels[8:11, 8:11] = (250, 50, 83), (1, 2, 3)
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(pixels).save(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nwidget:250,50,83::\n")
    ((_, picture),) = read_voc(tmp_path)
    assert sorted(shape.label for shape in picture.shapes) == ["#010203", "widget"]
    (tmp_path / "labelmap.txt").write_text("bird:128,128,0::\nbird:64,128,0::\nvoid:224,224,192::\nvoid:1,1,1::\n")
    palette_png(tmp_path / "SegmentationClass" / "a.png", label_map())
    ((_, picture),) = read_voc(tmp_path)
    areas = {shape.label: int((drawn((shape,), SIZE) > 0).sum()) for shape in picture.shapes}
    assert areas["bird"] == 4 * 4 + 5 * 8  # what two colours are called alike is one label
    (tmp_path / "labelmap.txt").write_text("widget:red::\n")
    with pytest.raises(AnnotationError, match="line 1: expected label:red,green,blue:parts:actions, got"):
        list(read_voc(tmp_path))


def test_a_damaged_mask_is_named(devkit):
    (devkit / "VOCdevkit/VOC2012/SegmentationClass/2007_2.png").write_bytes(b"no picture")
    with pytest.raises(AnnotationError, match="2007_2.png"):
        Annotations.of(devkit)


def test_boxes_of_xml(devkit):
    path = devkit / "VOCdevkit/VOC2012/Annotations/2007_1.xml"
    assert voc_objects(path) == ("2007_1.jpg", SIZE, [("bird", (3.0, 2.0, 9.0, 8.5))])
    path.write_text(path.read_text().replace("<xmin>3</xmin>", ""))
    with pytest.raises(AnnotationError, match="expected PASCAL VOC's XML, got a damaged file"):
        voc_objects(path)
