"""What does reading a masked folder cost beside reading pictures and masks with Pillow and no questions asked?

    python benchmarks/bench_data.py                      600 photographs of 500 x 375 pixels with VOC's kind of mask
    python benchmarks/bench_data.py --images 2000 --size 160

Milliseconds of processor time an image, one thread. The floor decodes and resizes the same two files with the same
filters and makes tensors of them. The variants are timed on a batch as a loader yields it, beside copying the batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import machine, measure_together
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from torch_bgdebias.data import VARIANTS, MaskedImageFolder, make_variant

SIDES = (500, 375)  # of VOC's photographs
TURNS = 5


def write_folder(root: Path, images: int, classes: int = 8) -> None:
    """Noise of several scales as JPEG, blobs as palette masks with a border of void."""
    numbers = np.random.default_rng(0)
    palette = [0, 0, 0, 128, 0, 0] + [0] * 756 + [224, 224, 192]
    y, x = np.mgrid[: SIDES[1], : SIDES[0]]
    for index in range(images):
        name = f"class_{index % classes}/{index:05d}"
        coarse = Image.fromarray(numbers.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIDES, 3)
        grain = numbers.integers(-20, 21, (SIDES[1], SIDES[0], 3))
        picture = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
        away = np.hypot((x - 250) / 150, (y - 190) / 110)
        mask = Image.fromarray(np.select([away < 1, away < 1.03], [1, 255], 0).astype(np.uint8), "P")
        mask.putpalette(palette)
        for folder, file, ending in (("images", picture, "jpg"), ("masks", mask, "png")):
            path = root / folder / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            file.save(path)


def by_hand(path: Path, root: Path, size: int) -> tuple[Tensor, Tensor]:
    """The floor."""
    mask_path = (root / "masks" / path.relative_to(root / "images")).with_suffix(".png")
    with Image.open(path) as picture, Image.open(mask_path) as mask:
        image = F.to_dtype(F.pil_to_tensor(picture.convert("RGB")), torch.float32, scale=True)
        foreground = torch.from_numpy((np.asarray(mask) == 1).astype(np.float32))[None]
    return tuple(F.resize(t, [size, size], antialias=True) for t in (image, foreground))  # type: ignore[return-value]


def seconds(function: Callable[[], object]) -> float:
    """Of processor time."""
    start = time.process_time()
    function()
    return time.process_time() - start


def print_reading(root: Path, size: int) -> None:
    """Opening, and reading in turns with the floor."""
    paths = sorted((root / "images").glob("*/*"))
    opening = min(seconds(lambda: MaskedImageFolder(root, size=(size, size))) for _ in range(TURNS))
    folder = MaskedImageFolder(root, size=(size, size), with_void=False)
    ours, floor = [], []
    for _ in range(TURNS):
        floor.append(seconds(lambda: [by_hand(path, root, size) for path in paths]))
        ours.append(seconds(lambda: [folder[index] for index in range(len(folder))]))
    each = 1e3 / len(paths)
    print(f"opening          {opening * each:6.2f} ms an image")
    print(f"reading          {min(ours) * each:6.2f} ms an image, {min(ours) / min(floor):.2f} x by hand")
    print(f"by hand          {min(floor) * each:6.2f} ms an image")


def print_variants(root: Path, size: int) -> None:
    """Each variant of a batch of 64."""
    folder = MaskedImageFolder(root, size=(size, size), with_void=False)
    items = [folder[index] for index in range(64)]
    image, mask = (torch.stack([item[place] for item in items]) for place in (0, 2))
    label = torch.tensor([item[1] for item in items])
    generator = torch.Generator().manual_seed(0)
    calls = {name: (lambda name=name: make_variant(image, mask, label, name, generator=generator)) for name in VARIANTS}
    timings = measure_together(calls | {"clone()": image.clone}, device=torch.device("cpu"), calls=15)
    for name, timing in timings.items():
        print(f"{name:<16} {timing.cpu:6.2f} ms a batch, {timing.cpu / timings['clone()'].cpu:5.1f} x clone()")


def main() -> None:
    """Write a folder, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as root:
        write_folder(Path(root), args.images)
        print(f"{args.images} images of {SIDES[0]} x {SIDES[1]}, read at {args.size} x {args.size}")
        print_reading(Path(root), args.size)
        print_variants(Path(root), args.size)


if __name__ == "__main__":
    main()
