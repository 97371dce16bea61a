"""Whatever stands in a file or a state: its value, or an error that is named. 20,000 mistakes each in the slow tier."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_data
import hostile_readers
import pytest
import torch
from fuzzing import changed_bytes, changed_json, changed_tensors, unexpected, unexpected_in_child
from hostile_data import DATA_READERS
from hostile_readers import MORE_READERS, SLOW_READERS, draw_masks

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.generation.manifest import Manifest
from torch_bgdebias.clad import NegativeQueue
from torch_bgdebias.masks.formats.boxes import BoxFile
from torch_bgdebias.swap import BackgroundSwap

POINTS = [[1.0, 1.0], [9.0, 1.0], [9.0, 7.5]]
FLAT = [1.0, 1.0, 9.0, 1.0, 9.0, 7.5]
_BITS = f"{480:032b}{7:05b}0000001101111111" + f"111{479:016b}{255:08b}0000"  # 12 x 10 x 4 values of 255 as one run
BRUSH = [int(_BITS[i : i + 8], 2) for i in range(0, len(_BITS), 8)]
BITMAP = (
    "eJzrDPBz5+WS4mJgYOD19HAJAtIsQMzMASQYJs7/KAWkBDxdHEMq5iT/OX/g"
    "wIEjDMoMfHqMrHIt3CCFDJ6ufi7rnBKaABXREKg="
)  # a PNG of 4 x 3, packed
ANNOTATIONS: dict[str, Any] = {
    "LabelMe": {
        "imagePath": "a.jpg", "imageHeight": 12, "imageWidth": 10,
        "shapes": [
            {"label": "dog", "points": POINTS, "shape_type": kind} for kind in ("polygon", "rectangle", "circle")
        ],
    },
    "COCO": {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 10}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [FLAT], "iscrowd": 0, "bbox": [1, 1, 8, 6]},
            {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [1, 1, 8, 6],
             "segmentation": {"size": [12, 10], "counts": [40, 60, 20]}},
            {"id": 3, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [1, 1, 8, 6],
             "segmentation": {"size": [12, 10], "counts": "X1l1d0"}},
        ],
    },
    "Label Studio": [{
        "data": {"image": "/data/a.jpg"},
        "annotations": [{"result": [
            {"type": "polygonlabels", "original_width": 10, "original_height": 12, "from_name": "label",
             "value": {"points": [[10, 10], [90, 10], [90, 60]], "polygonlabels": ["dog"]}},
            {"type": "brushlabels", "original_width": 10, "original_height": 12, "from_name": "label",
             "value": {"format": "rle", "rle": BRUSH, "brushlabels": ["dog"]}},
        ]}],
    }],
    "Supervisely": {
        "size": {"height": 12, "width": 10},
        "objects": [
            {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": POINTS, "interior": [POINTS]}},
            {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"origin": [1, 1], "data": BITMAP}},
        ],
    },
    "Datumaro": {
        "info": {}, "categories": {"label": {"labels": [{"name": "dog"}]}},
        "items": [{"id": "a", "image": {"path": "a.jpg", "size": [12, 10]}, "annotations": [
            {"type": "polygon", "label_id": 0, "points": FLAT, "z_order": 0},
            {"type": "mask", "label_id": 0, "rle": {"counts": "X1l1d0", "size": [12, 10]}},
        ]}],
    },
}  # fmt: skip
CVAT = (
    b'<annotations><image id="0" name="a.jpg" width="10" height="12"><polygon label="dog" points="1,1;9,1;9,7.5" '
    b'z_order="0"/><box label="cat" xtl="1" ytl="2" xbr="5" ybr="6" z_order="1"/></image></annotations>'
)
MANIFEST = [{"file": "0.png", "sha256": "ab", "seed": 1, "prompt": "a beach"}, {"file": "1.png", "dropped": "person"}]


def annotations(kind: str) -> Callable[[Path, random.Random], None]:
    def attempt(folder: Path, draw: random.Random) -> None:
        path = folder / ("a.xml" if kind == "CVAT" else "a.json")
        path.write_bytes(changed_bytes(CVAT, draw) if kind == "CVAT" else changed_json(ANNOTATIONS[kind], draw))
        draw_masks(path)

    return attempt


def boxes(folder: Path, draw: random.Random) -> None:
    path = folder / "boxes.json"
    path.write_bytes(changed_json(ANNOTATIONS["COCO"], draw))
    BoxFile.of(path).find("a.jpg", "dog", (12, 10))


def manifest(folder: Path, draw: random.Random) -> None:
    lines = b"\n".join(
        changed_json(record, draw) if draw.random() < 0.6 else json.dumps(record).encode() for record in MANIFEST
    )
    (folder / "backgrounds.jsonl").write_bytes(lines + b"\n")
    records = Manifest(folder)
    records.hashes()


def queue(folder: Path, draw: random.Random) -> None:
    source, target = NegativeQueue(3, 4), NegativeQueue(3, 4)
    source.enqueue(torch.randn(7, 5), torch.tensor([0, 1, 2, 0, 0, 0, 0]))
    target.load_state_dict(changed_tensors(source.state_dict(), draw))
    rows, valid = target.negatives(torch.tensor([0, 1, 2]))
    assert rows[valid].isfinite().all()
    target.enqueue(torch.randn(2, target.dim or 5), torch.tensor([0, 1]))


def params(folder: Path, draw: random.Random) -> None:
    image, mask, label = torch.rand(4, 3, 8, 9), torch.zeros(4, 1, 8, 9), torch.tensor([0, 1, 0, 1])
    pool = BackgroundBank(torch.randint(0, 256, (5, 3, 8, 9), dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 1]))
    swap = BackgroundSwap(draw.choice(["batch", pool]), draw.choice(["paste", "voronoi"]))
    drawn = changed_tensors(swap.generate_parameters(image.shape, label), draw)
    swapped = swap(image, mask, label, params=drawn)[0]
    assert swapped.isfinite().all(), {name: value for name, value in drawn.items() if name != "index"}


READERS = {**{kind: annotations(kind) for kind in (*ANNOTATIONS, "CVAT")}, "boxes": boxes, "manifest": manifest}
READERS |= MORE_READERS | DATA_READERS
STATES = {"queue": queue, "params": params}
NAMED = (ValueError, KeyError, TypeError, OSError)


def strays(reader: str, folder: Path, count: int, search: Callable[..., list[str]] = unexpected) -> list[str]:
    """What ended otherwise than with a value or an error that names the file (of states: that says something)."""
    attempt = {**READERS, **STATES, **SLOW_READERS}[reader]
    named = (*NAMED, RuntimeError) if reader == "queue" else NAMED  # torch's load_state_dict has its own
    words = "." if reader in (*STATES, *SLOW_READERS) else re.escape(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return search(lambda draw: attempt(folder, draw), count, named, words=words)


@pytest.mark.parametrize("reader", [*READERS, *STATES])
def test_a_hundred_mistakes(tmp_path, reader):
    assert strays(reader, tmp_path, 100) == []


@pytest.mark.parametrize("reader", SLOW_READERS)
def test_a_few_mistakes(tmp_path, reader):
    assert strays(reader, tmp_path, 10) == []


@pytest.mark.parametrize(("reader", "number"), [("bank", 1832), ("Parquet", 17017), ("TIFF", 489)])
def test_what_slipped_through_once(tmp_path, reader, number):
    """An error of the system without a name, an abort within pyarrow, a second page without size."""
    if reader == "Parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises((ValueError, OSError), match=re.escape(str(tmp_path))):
        READERS[reader](tmp_path, random.Random(number))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process with an end to its memory")
@pytest.mark.parametrize("reader", [*READERS, *STATES, *SLOW_READERS])
def test_twenty_thousand_mistakes(tmp_path, reader):
    assert strays(reader, tmp_path, 20_000, unexpected_in_child) == []


@pytest.mark.parametrize("reader", READERS)
def test_what_is_whole_is_read(tmp_path, reader, monkeypatch):
    """Else every mistake would be refused for another reason."""
    for module in (sys.modules[__name__], hostile_readers, hostile_data):
        for name in ("changed_json", "changed_bytes", "changed_number", "changed_content", "changed_tensors"):
            unchanged = (lambda content, draw: json.dumps(content).encode()) if name == "changed_json" else _same
            monkeypatch.setattr(module, name, unchanged, raising=False)
    READERS[reader](tmp_path, _First())


class _First(random.Random):
    """Takes the first of two ways."""

    def random(self) -> float:
        return 0.0


def _same(content: Any, draw: random.Random) -> Any:
    return content
