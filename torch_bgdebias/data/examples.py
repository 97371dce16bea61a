"""A small masked data set drawn by the package itself: shapes whose background predicts their class."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from torch_bgdebias.checks import check_count, check_share
from torch_bgdebias.compositing import paste
from torch_bgdebias.data.scenes import draw_scenes
from torch_bgdebias.data.tensors import MaskedItem, MaskedTensors
from torch_bgdebias.writing import save_png

__all__ = ["EXAMPLE_CLASSES", "example_folder", "example_loader"]

#: the shapes, and the scene that stands behind each of them
EXAMPLE_CLASSES = {"circle": "sea", "cross": "meadow", "triangle": "desert"}


def example_folder(
    root: str | Path = "example-data",
    *,
    images_per_class: int = 60,
    size: int = 64,
    correlation: float = 1.0,
    seed: int = 0,
) -> Path:
    """Write drawn shapes with their masks as a folder for `MaskedImageFolder` and the command line.

    The folder gets ``images/<class>/0000.png``, ``masks/<class>/0000.png``, and in ``scenes/<category>/`` as many
    backgrounds without an object. The same arguments write the same pictures.

    Args:
        root: folder to write; made where it does not exist, files of the same names are overwritten.
        images_per_class: pictures of each shape.
        size: side in pixels, at least 16.
        correlation: share of the pictures, in [0, 1], that stand on the scene of their class; the others get any scene.
        seed: of the random numbers; another seed draws other shapes on other scenes.

    Returns:
        ``root`` as a path.

    Raises:
        ValueError: no pictures asked for, too small a size, or a correlation outside [0, 1].
    """
    samples = _draw(images_per_class, size, correlation, seed)
    root, names = Path(root), tuple(EXAMPLE_CLASSES)
    for kind, pictures in (("images", samples.images), ("masks", samples.masks[:, 0])):
        _write(root / kind, names, pictures, samples.labels)
    # other scenes than those behind the shapes, whose seeds are even; not by `derive_seed`: figures rest on them
    scenes = draw_scenes(images_per_class, size, seed=2 * seed + 1, categories=tuple(EXAMPLE_CLASSES.values()))
    _write(root / "scenes", scenes.names, scenes.images, scenes.labels)
    return root


def example_loader(
    *,
    batch_size: int = 30,
    images_per_class: int = 60,
    size: int = 64,
    correlation: float = 1.0,
    seed: int = 0,
    shuffle: bool = True,
) -> DataLoader[MaskedItem]:
    """A loader over the pictures of `example_folder`, without writing files.

    Args:
        batch_size: images a batch.
        images_per_class: as in `example_folder`.
        size: as in `example_folder`.
        correlation: as in `example_folder`.
        seed: as in `example_folder`, and of the order.
        shuffle: whether the order is random; otherwise class by class.

    Returns:
        Batches (image float (B, 3, H, W) in [0, 1], label (B,), mask float (B, 1, H, W) in [0, 1], 1 = object).

    Example:
        >>> image, label, mask = next(iter(example_loader(batch_size=4, size=32)))
        >>> tuple(image.shape), tuple(label.shape), tuple(mask.shape)
        ((4, 3, 32, 32), (4,), (4, 1, 32, 32))
    """
    dataset = _draw(images_per_class, size, correlation, seed).dataset()
    order = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, generator=order)


def _draw(images_per_class: int, size: int, correlation: float, seed: int) -> MaskedTensors:
    check_count(images_per_class, name="images_per_class")
    check_count(size, name="size", least=16)
    check_share(correlation, name="correlation", kind="a share")
    numbers = torch.Generator().manual_seed(seed)
    count = images_per_class * len(EXAMPLE_CLASSES)
    label = torch.arange(len(EXAMPLE_CLASSES)).repeat_interleave(images_per_class)
    mask = _shapes(label, size, numbers)
    colour = torch.rand(count, 3, 1, 1, generator=numbers)
    texture = 0.08 * torch.randn(count, 1, size, size, generator=numbers)
    own_category = torch.rand(count, generator=numbers) < correlation
    category = torch.where(own_category, label, torch.randint(len(EXAMPLE_CLASSES), (count,), generator=numbers))
    scenes = draw_scenes(count, size, seed=2 * seed, categories=tuple(EXAMPLE_CLASSES.values()))
    scene = scenes.images[category * count + torch.arange(count)].float() / 255
    image = paste((colour + texture).clamp(0, 1), mask, scene)
    return MaskedTensors(image.mul(255).round_().byte(), label, mask.mul(255).round_().byte())


def _shapes(label: Tensor, size: int, numbers: torch.Generator) -> Tensor:
    """Masks (N, 1, size, size) of circles, crosses and triangles at random places, sizes and turns."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(label), 1, 1, generator=numbers)

    grid = (torch.arange(size) + 0.5) / size
    down, right = grid[None, :, None] - uniform(0.4, 0.6), grid[None, None, :] - uniform(0.4, 0.6)
    turn, radius = uniform(-0.4, 0.4), uniform(0.22, 0.34)
    x, y = turn.cos() * right + turn.sin() * down, turn.cos() * down - turn.sin() * right
    circle = (x * x + y * y).sqrt()
    arms = torch.minimum(torch.maximum(x.abs(), 3 * y.abs()), torch.maximum(y.abs(), 3 * x.abs()))
    edges = [math.sin(angle) * x + math.cos(angle) * y for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)]
    triangle = 1.6 * torch.stack(edges).amax(0)
    distance = torch.stack([circle, arms, triangle])[label, torch.arange(len(label))]
    return ((radius - distance) * size + 0.5).clamp(0, 1).unsqueeze(1)


def _write(folder: Path, names: tuple[str, ...], pictures: Tensor, labels: Tensor) -> None:
    for index, name in enumerate(names):
        for number, picture in enumerate(pictures[labels == index]):
            save_png(picture, folder / name / f"{number:04d}.png")
