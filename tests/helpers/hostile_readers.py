"""Readers of tables, settings, checkpoints, manifests and Parquet on files with drawn mistakes in them."""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzzing import changed_bytes, changed_content, changed_json, changed_tensors
from PIL import Image
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint, read_checkpoint
from torch_bgdebias.cli import train
from torch_bgdebias.masks import MakingSettings, make_masks, mask_maker
from torch_bgdebias.masks.formats.boxes import BoxFile
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias, groups_from_csv

YOLO = b"0 0.1 0.1 0.9 0.1 0.9 0.7\n1 0.2 0.2 0.8 0.2 0.8 0.8 0.3 0.9\n"
YOLO_BOXES = b"0 0.5 0.5 0.4 0.2\n1 0.3 0.3 0.1 0.1\n"
BOX_TABLE = b"image,left,top,right,bottom,label\na.jpg,1,1,9,7,dog\nb.jpg,0,2,5,6,cat\n"
GROUP_TABLE = b"image,hospital,age\na.jpg,north,3\nb.jpg,south,\xc3\xa9\n"
SETTINGS: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"class_path": "torch_bgdebias.train.ImageClassifier", "init_args": {"network": "x:Y", "lr": 0.1}},
    "data": {"class_path": "torch_bgdebias.train.MaskedFolders", "init_args": {"train": "a", "val": "b", "size": 8}},
    "trainer": {
        "max_epochs": 1,
        "callbacks": [
            {"class_path": "torch_bgdebias.callbacks.BackgroundBiasProbe", "init_args": {"every_n_epochs": 1}},
            {"class_path": "ModelCheckpoint", "init_args": {"monitor": "bias/worst_variant", "mode": "max"}},
        ],
    },
}
_PARSERS: dict[Any, dict[str, Any]] = {}
Reader = Callable[[Path, random.Random], None]


def changed_number(data: bytes, draw: random.Random) -> bytes:
    """A field of a table or of lines replaced, or bytes changed."""
    if draw.random() < 0.5:
        return changed_bytes(data, draw)
    lines = [line.replace(b",", b" , ").split(b" ") for line in data.split(b"\n")]
    row = draw.choice([line for line in lines if line != [b""]])
    odd = (b"-1", b"", b"nan", b"inf", b"1e400", b"9" * 400, b"\xff", b"\x00", b'"', b"x" * 9000, b"-0.5", b"1,2")
    row[draw.randrange(len(row))] = draw.choice(odd)
    return b"\n".join(b" ".join(line) for line in lines)


def lines_of(name: str, content: bytes, read: Callable[[Path], Any]) -> Reader:
    def attempt(folder: Path, draw: random.Random) -> None:
        path = folder / name
        path.write_bytes(changed_number(content, draw))
        read(path)

    return attempt


def outlines(path: Path) -> None:
    (path.parent / "classes.txt").write_text("dog\ncat\n")
    draw_masks(path)


def draw_masks(path: Path) -> None:
    """What annotations say of the one picture that is there."""
    picture = path.parent / "a.jpg"
    if not picture.is_file():
        Image.new("RGB", (10, 12)).save(picture)
    annotations = Annotations.of(path)
    if annotations.find("a.jpg") is not None:
        annotations.mask(picture, "a.jpg")


def boxes(path: Path) -> None:
    file = BoxFile.of(path)
    for name in ("a.jpg", "b.jpg"):
        file.find(name, "dog", (12, 10))


def groups(path: Path) -> None:
    assert groups_from_csv(path, ["x/a.jpg", "x/b.jpg"], "hospital") is not None


@contextlib.contextmanager
def one_parser() -> Iterator[None]:
    """Lightning's command line is set up once, and not for each file, which takes half a second."""
    from lightning.pytorch import cli as one
    from pytorch_lightning import cli as two

    plain = {package: package.LightningCLI.setup_parser for package in (one, two)}

    def setup_parser(self: Any, *args: Any) -> None:
        package = one if isinstance(self, one.LightningCLI) else two
        if package not in _PARSERS:
            plain[package](self, *args)
            _PARSERS[package] = {
                name: vars(self)[name] for name in vars(self) if "parser" in name or "subcommand" in name
            }
        vars(self).update(_PARSERS[package])

    try:
        for package in plain:
            package.LightningCLI.setup_parser = setup_parser
        yield
    finally:
        for package, method in plain.items():
            package.LightningCLI.setup_parser = method


def settings(folder: Path, draw: random.Random) -> None:
    """``bgdebias train --config``, up to where a trainer would be made."""
    path = folder / "train.yaml"
    if draw.random() < 0.5:
        text = changed_bytes(yaml.safe_dump(SETTINGS).encode(), draw)
    else:
        text = yaml.safe_dump(changed_content(SETTINGS, draw), allow_unicode=True).encode("utf-8", "surrogatepass")
    path.write_bytes(text)
    words = argparse.Namespace(arguments=["--config", str(path), "--print_config"], debug=False)
    with one_parser(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = train.run(words)
    assert code in (0, 1, 2)
    assert code == 0 or said.getvalue().startswith("bgdebias train: error:"), said.getvalue()


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))


def checkpoint(folder: Path, draw: random.Random) -> None:
    """What ``bgdebias head`` and ``bgdebias train`` write."""
    path, model = folder / "head.pt", Small()
    notes = notes_for_checkpoint(Preprocessing(8, (0.5,) * 3, (0.2,) * 3, source="a"), ["cat", "dog"])
    content: Any = {"state_dict": model.state_dict(), NOTES: notes}
    kind = draw.randrange(3)
    if kind == 0:
        content["state_dict"] = changed_tensors(content["state_dict"], draw)
    elif kind == 1:
        content[NOTES] = changed_content(notes, draw)
    file = io.BytesIO()
    torch.save(content, file)
    path.write_bytes(changed_bytes(file.getvalue(), draw) if kind == 2 else file.getvalue())
    read_checkpoint(path).load_into(model)


def bank(folder: Path, draw: random.Random) -> None:
    path, file = folder / "a.bank.pt", io.BytesIO()
    pixels = torch.randint(0, 256, (4, 3, 5, 4), dtype=torch.uint8)
    BackgroundBank(pixels, torch.arange(4) % 2, mean=(0.5,) * 3, std=(0.2,) * 3, classes=["a", "b"]).save(path)
    if draw.random() < 0.5:
        path.write_bytes(changed_bytes(path.read_bytes(), draw))
    else:
        torch.save(changed_tensors(torch.load(path, weights_only=True), draw), file)
        path.write_bytes(file.getvalue())
    loaded = BackgroundBank.load(path)
    images, _ = loaded.sample(3)
    assert images.isfinite().all()


@cache
def report() -> BackgroundBiasReport:
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand(8, 3, 8, 8, generator=generator), torch.zeros(8, 1, 8, 8)
    masks[:, :, 2:6, 2:6] = 1
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.eye_(net[2].weight)  # the same file in every run, so that a mistake with a number is the same one
    nn.init.zeros_(net[2].bias)
    return evaluate_background_bias(net, [(images, torch.arange(8) % 2, masks)], name="a", examples=0)


def parquet(folder: Path, draw: random.Random) -> None:
    import pyarrow
    from pyarrow import parquet as files

    path, whole = folder / "a.parquet", folder / "whole.parquet"
    if not whole.is_file():
        report().to_parquet(whole)
    if draw.random() < 0.5:
        path.write_bytes(changed_bytes(whole.read_bytes(), draw))
    else:
        table = files.read_table(whole)
        key, metadata = next(iter(table.schema.metadata.items()))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        if draw.random() < 0.5:
            metadata = json.dumps(changed_content(json.loads(metadata), draw)).encode("utf-8", "surrogatepass")
        else:
            name = draw.choice(sorted(columns))
            odd = ([None] * 8, ["x"] * 8, [-(2**40)] * 8, [float("nan")] * 8, [[1.0, 2.0]] * 8, [True] * 8)
            columns[draw.choice((name, f"{name}/x", "prediction/x", "targets"))] = draw.choice(odd)
            if draw.random() < 0.3:
                del columns[name]
        files.write_table(pyarrow.table(columns).replace_schema_metadata({key: metadata}), path)
    BackgroundBiasReport.from_parquet(path).summary()


def brighter(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 0] > 0.5).float()


def made_masks(folder: Path, draw: random.Random) -> None:
    """``masks.json`` beside masks that are there: goes on, or says whose they are."""
    pictures, out = folder / "pictures", folder / "out"
    maker = mask_maker("hostile_readers:brighter")
    if not pictures.is_dir():
        pictures.mkdir()
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(pictures / "a.png")
    if not (out / "a.png").is_file():
        make_masks(pictures, out, maker)
        (folder / "whole.json").write_bytes((out / "masks.json").read_bytes())
    content = json.loads((folder / "whole.json").read_text())
    (out / "masks.json").write_bytes(changed_json(copy.deepcopy(content), draw))
    make_masks(pictures, out, maker, settings=MakingSettings())


MORE_READERS: dict[str, Reader] = {
    "YOLO": lines_of("a.txt", YOLO, outlines),
    "YOLO boxes": lines_of("a.txt", YOLO_BOXES, boxes),
    "box table": lines_of("boxes.csv", BOX_TABLE, boxes),
    "group table": lines_of("groups.csv", GROUP_TABLE, groups),
    "checkpoint": checkpoint,
    "bank": bank,
    "Parquet": parquet,
    "masks.json": made_masks,
}
#: a command line is set up for each file
SLOW_READERS: dict[str, Reader] = {"settings": settings}
