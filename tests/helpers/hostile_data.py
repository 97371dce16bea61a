"""Readers of data sets, pictures, masks, reports and lists on files with drawn mistakes in them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import struct
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import changed_bytes, changed_content, changed_json, changed_tensors
from hostile_readers import Reader, Small, changed_number, report
from PIL import Image

from torch_bgdebias.backgrounds.screening.seen import SeenCache
from torch_bgdebias.checkpoints import read_checkpoint
from torch_bgdebias.cli.backgrounds import _lines
from torch_bgdebias.cli.probe.outputs import read_labels
from torch_bgdebias.concepts import ConceptTransfer
from torch_bgdebias.data import Waterbirds, load_places365
from torch_bgdebias.data.digits import read_idx
from torch_bgdebias.data.imagenet9 import _read_mask
from torch_bgdebias.files import read_image
from torch_bgdebias.masks.contents import load_mask
from torch_bgdebias.masks.formats.voc import read_voc, voc_objects
from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.probe.report import report_html

VOC = (
    b"<annotation><filename>a.jpg</filename><size><width>10</width><height>12</height></size><object><name>dog</name>"
    b"<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>"
)
LABELMAP = b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n"
WATERBIRDS = b"img_id,img_filename,y,split,place,place_filename\n1,a.png,0,0,1,/x/y.jpg\n2,a.png,1,0,0,/x/z.jpg\n"
PLACES = b"/a/airfield 0\n/a/abbey 1\n", b"a.png 0\nb.png 1\n"
TRANSFER = {
    "concepts": ["a"], "layers": ["l"], "methods": ["net2vec"], "conditions": ["c"], "categories": ["original"],
    "labels": [0, 1], "iou": [[[[[0.5, 0.25]]]]], "vectors": {"net2vec": [[[[1.0, 2.0]]]]}, "too_small": {"l": [1]},
}  # fmt: skip


def picture(kind: str, **options: Any) -> bytes:
    """A small file of a format; grey levels, a palette or colours."""
    pixels = np.arange(360, dtype=np.uint8).reshape(12, 10, 3)
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, pixels[..., 0] > 90)
        return file.getvalue()
    image = Image.fromarray(pixels)
    if options.pop("palette", False):
        image = image.quantize(5)
    if options.pop("deep", False):
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image.save(file, format=kind, **options)
    return file.getvalue()


PICTURES: dict[str, tuple[str, bytes]] = {
    "PNG": ("a.png", picture("PNG")),
    "palette": ("a.png", picture("PNG", palette=True)),
    "deep PNG": ("a.png", picture("PNG", deep=True)),
    "JPEG": ("a.jpg", picture("JPEG")),
    "TIFF": ("a.tif", picture("TIFF", compression="tiff_lzw")),
    "WebP": ("a.webp", picture("WEBP")),
    "GIF": ("a.gif", picture("GIF")),
    "BMP": ("a.bmp", picture("BMP")),
}


def file_of(name: str, content: bytes, read: Callable[[Path], Any]) -> Reader:
    """Bytes changed, under that name, read."""

    def attempt(folder: Path, draw: random.Random) -> None:
        path = folder / name
        path.write_bytes(changed_bytes(content, draw))
        read(path)

    return attempt


def see(path: Path) -> None:
    """As a picture and as a mask."""
    assert read_image(path).dtype == torch.uint8
    load_mask(path)


def voc(folder: Path, draw: random.Random) -> None:
    """Object numbers and their XML, or colours and their list."""
    if not (folder / "SegmentationObject").is_dir():
        for name in ("SegmentationObject", "Annotations", "SegmentationClass"):
            (folder / name).mkdir()
        pixels = np.zeros((12, 10), np.uint8)
        pixels[2:5, 3:6] = 1
        numbers = Image.fromarray(pixels, mode="P")
        numbers.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        numbers.save(folder / "SegmentationObject" / "a.png")
        numbers.save(folder / "colours.png")
    by_class = folder / "SegmentationClass" / "a.png"
    by_class.unlink(missing_ok=True)
    if draw.random() < 0.5:
        by_class.write_bytes((folder / "colours.png").read_bytes())
        (folder / "labelmap.txt").write_bytes(changed_number(LABELMAP, draw))
    else:
        (folder / "Annotations" / "a.xml").write_bytes(changed_bytes(VOC, draw))
        voc_objects(folder / "Annotations" / "a.xml")
    list(read_voc(folder))


def waterbirds(folder: Path, draw: random.Random) -> None:
    (folder / "a.png").write_bytes(PICTURES["PNG"][1])
    (folder / "metadata.csv").write_bytes(changed_number(WATERBIRDS, draw))
    Waterbirds(folder)[0]


def places(folder: Path, draw: random.Random) -> None:
    names = ("categories_places365.txt", "places365_val.txt")
    chosen = draw.randrange(2)
    for number, (name, content) in enumerate(zip(names, PLACES, strict=True)):
        (folder / name).write_bytes(changed_number(content, draw) if number == chosen else content)
    (folder / "val_256").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / "val_256" / name).write_bytes(PICTURES["PNG"][1])
    load_places365(folder, 8, split="val", small=True, threads=1)


def idx(packed: bool) -> Reader:
    content = b"\0\0\x08\x03" + struct.pack(">3I", 2, 4, 5) + bytes(range(40))
    return file_of("images", gzip.compress(content) if packed else content, read_idx)


def seen(folder: Path, draw: random.Random) -> None:
    """A cache: what is damaged is passed over with a warning, never an error."""
    path = folder / "x.pt"
    path.unlink(missing_ok=True)
    cache = SeenCache(folder, "x")
    cache.num_classes = 5
    cache.put(b"0" * 16, torch.tensor([3, 1]))
    cache.put(b"1" * 16, torch.tensor([2]))
    cache.write()
    if draw.random() < 0.5:
        path.write_bytes(changed_bytes(path.read_bytes(), draw))
    else:
        content = torch.load(path, weights_only=True)
        if draw.random() < 0.5:
            content["groups"][0] = changed_tensors(content["groups"][0], draw)
        else:
            content = changed_tensors(content, draw)
        torch.save(content, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = SeenCache(folder, "x")
    again.get(b"0" * 16, 1)
    again.write()


def labels(folder: Path, draw: random.Random) -> None:
    path = folder / "labels.json"
    path.write_bytes(changed_json({"cat": [0, 1], "dog": 2, "bird": [3]}, draw))
    with contextlib.redirect_stderr(io.StringIO()):
        read_labels(path, ["cat", "dog", "bird"])


def safetensors(folder: Path, draw: random.Random) -> None:
    from safetensors.torch import save

    path = folder / "head.safetensors"
    path.write_bytes(changed_bytes(save(Small().state_dict()), draw))
    read_checkpoint(path).load_into(Small())


def transfer(folder: Path, draw: random.Random) -> None:
    path = folder / "transfer.json"
    path.write_bytes(changed_json(TRANSFER, draw))
    ConceptTransfer.from_json(path)


@cache
def whole_report() -> str:
    return json.dumps(report().to_dict())


def report_file(folder: Path, draw: random.Random) -> None:
    path = folder / "report.json"
    content = json.loads(whole_report())
    change = changed_content(content, draw)
    text = json.dumps(change).encode() if draw.random() < 0.7 else changed_bytes(whole_report().encode(), draw)
    path.write_bytes(text)
    again = BackgroundBiasReport.from_json(path)
    again.summary()
    if draw.random() < 0.02:
        report_html([again])


DATA_READERS: dict[str, Reader] = {
    **{name: file_of(file, content, see) for name, (file, content) in PICTURES.items()},
    "npy": file_of("a.npy", picture("npy"), load_mask),
    "ImageNet-9 mask": file_of("a.npy", picture("npy"), _read_mask),
    "VOC": voc,
    "Waterbirds": waterbirds,
    "Places": places,
    "idx": idx(packed=False),
    "idx, packed": idx(packed=True),
    "seen": seen,
    "labels": labels,
    "lines": file_of("forbidden.txt", "1\nocéan\nbeach\n".encode(), _lines),
    "safetensors": safetensors,
    "transfer": transfer,
    "report": report_file,
}
