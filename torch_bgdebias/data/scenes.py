"""Drawn scenes: ten kinds of background that the package paints itself, so that the demo needs no pictures.

Every picture is drawn from random numbers: colours, horizon, scale, perspective, light and texture vary within a
category, so that a network recognises the category (it is a usable shortcut) and no single colour gives it away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.checks import check_count, check_size
from torch_bgdebias.data._canvas import Canvas, blend
from torch_bgdebias.files import first_few

__all__ = ["SCENE_CATEGORIES", "Scenes", "draw_scenes", "paint_scenes"]

Colours = Sequence[tuple[float, float, float]]
_CHUNK_PIXELS = 1 << 20  # a chunk of pictures stays in the processor's cache


class Scenes(NamedTuple):
    """Backgrounds by category, as `BackgroundBank` and `CorrelatedBackgrounds` take them.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64, index into ``names``.
        names: the categories' names.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


def draw_scenes(
    n_per_category: int = 200,
    size: int | tuple[int, int] = 64,
    *,
    seed: int = 0,
    categories: int | Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> Scenes:
    """Draw background scenes.

    Args:
        n_per_category: pictures of each category.
        size: (H, W), or one int for a square, at least 8; made for 32 to 224.
        seed: of the random numbers; the same seed gives the same pictures. A category's pictures do not depend on which
            other categories are drawn.
        categories: names out of ``SCENE_CATEGORIES``, how many of them from the first, or ``None`` for all ten.
        generator: a CPU generator that replaces ``seed``: the seed is then drawn from it.

    Returns:
        ``Scenes(images, labels, names)``, ordered by category.

    Raises:
        ValueError: no pictures asked for, too small a size, or a category that does not exist.

    Example:
        >>> scenes = draw_scenes(5, 32, categories=("sea", "desert"))
        >>> tuple(scenes.images.shape), scenes.images.dtype, scenes.names
        ((10, 3, 32, 32), torch.uint8, ('sea', 'desert'))
    """
    height, width = check_size(size) or (0, 0)  # type: ignore[unreachable]  # None comes from code without types
    if min(height, width) < 8:
        raise ValueError(f"size: expected at least 8 x 8, got {size!r}")
    check_count(n_per_category, name="n_per_category")
    names = _names(categories)
    if generator is not None:
        seed = int(torch.randint(2**31, (1,), generator=generator))
    images = []
    for name in names:
        # not by `derive_seed`: figures of experiments rest on these pictures
        numbers = torch.Generator().manual_seed(seed * 1009 + SCENE_CATEGORIES.index(name))
        chunk = max(1, _CHUNK_PIXELS // (height * width))
        for start in range(0, n_per_category, chunk):
            canvas = Canvas(min(chunk, n_per_category - start), (height, width), numbers)
            picture = canvas.light(_PAINTERS[name](canvas).expand(canvas.n, 3, height, width))
            images.append(picture.mul(255).round_().to(torch.uint8))
    labels = torch.arange(len(names)).repeat_interleave(n_per_category)
    return Scenes(torch.cat(images), labels, names)


def paint_scenes(categories: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """One scene for each category and seed, as a source of `torch_bgdebias.backgrounds.generate_backgrounds`.

    Args:
        categories: (B) names out of ``SCENE_CATEGORIES``.
        seeds: (B) of each picture; a picture does not depend on the others.
        size: (H, W), at least 8 x 8.

    Returns:
        (B, 3, H, W) uint8.
    """
    pairs = zip(categories, seeds, strict=True)
    return torch.cat([draw_scenes(1, size, seed=seed, categories=[name]).images for name, seed in pairs])


def _names(categories: int | Sequence[str] | None) -> tuple[str, ...]:
    if categories is None:
        return SCENE_CATEGORIES
    if isinstance(categories, int):
        if not 1 <= categories <= len(SCENE_CATEGORIES):
            raise ValueError(f"categories: expected 1 to {len(SCENE_CATEGORIES)} of them, got {categories}")
        return SCENE_CATEGORIES[:categories]
    unknown = [name for name in categories if name not in SCENE_CATEGORIES]
    if unknown or not categories or len(set(categories)) != len(categories):
        what = first_few(map(repr, unknown)) if unknown else repr(list(categories))
        raise ValueError(f"categories: expected different names out of {', '.join(SCENE_CATEGORIES)}, got {what}")
    return tuple(categories)


_DAY: Colours = ((0.35, 0.58, 0.9), (0.55, 0.75, 0.95), (0.75, 0.85, 0.95), (0.7, 0.72, 0.78))
_DUSK: Colours = ((0.95, 0.6, 0.35), (0.85, 0.45, 0.45), (0.98, 0.8, 0.5), (0.8, 0.6, 0.7))


def _heaven(c: Canvas, dusk: float = 0.25) -> Tensor:
    """A sky without clouds: paler, or red, towards the horizon."""
    top = c.colour(_DAY)
    low = torch.where(c.chance(dusk) > 0, c.colour(_DUSK), top + 0.75 * (1 - top))
    return blend(top, low, c.y * c.uniform(0.5, 1.1).clamp(max=1))


def _sky(c: Canvas) -> Tensor:
    image = _heaven(c)
    rows = c.clouds(3, 2, 5)
    cover = ((rows - c.uniform(0.4, 0.62)) * c.uniform(2.5, 6)).clamp(0, 1)
    shadow = c.clouds(4, 3, 3)
    image = blend(image, c.colour(((0.95, 0.95, 0.97), (1.0, 0.93, 0.88))) - 0.35 * shadow * shadow, cover * 0.95)
    sun = ((c.y - c.uniform(0.05, 0.6)) ** 2 + (c.x - c.uniform(0, 1)) ** 2).sqrt()
    glow = torch.exp(-sun * c.uniform(5, 12)) + c.within(sun, c.uniform(0.03, 0.07))
    return blend(image, torch.tensor([1.0, 0.95, 0.75]).view(1, 3, 1, 1), (glow * c.chance(0.5)).clamp(0, 1))


def _sea(c: Canvas) -> Tensor:
    horizon = c.uniform(0.08, 0.45)
    image = _heaven(c, 0.35)
    depth = ((c.y - horizon) / (1 - horizon)).clamp(0, 1)
    water = c.colour(((0.05, 0.25, 0.45), (0.05, 0.42, 0.5), (0.15, 0.3, 0.4), (0.1, 0.5, 0.62)), 0.06)
    water = blend(water + 0.22, water, depth.sqrt())
    swell = c.uniform(6, 14) * torch.log(depth + 0.06) * 3.2 + 4 * c.noise(5, 3) + c.uniform(0, 6)
    waves = 0.5 + 0.5 * torch.sin(swell + 2.5 * c.noise(12, 5))
    chop = c.clouds(20, 5, 2)
    water = water + (waves.pow(3) * 0.3 + 0.24 * (chop - 0.5)) * (0.3 + 0.7 * depth)
    foam = ((waves * chop - c.uniform(0.5, 0.72)) * 6).clamp(0, 1) * depth
    return blend(image, blend(water, torch.ones(1, 3, 1, 1), foam), c.below(horizon))


def _meadow(c: Canvas) -> Tensor:
    image = _heaven(c, 0.1)
    far = c.uniform(-0.05, 0.45)
    hills = c.colour(((0.25, 0.45, 0.3), (0.35, 0.5, 0.35), (0.3, 0.45, 0.5)), 0.05)
    image = blend(image, hills, c.below(far - 0.05 + 0.16 * (c.ridge(3) - 0.5)))
    line = far + 0.06 * (c.ridge(2, 1) - 0.5)
    depth = ((c.y - line) / (1 - line).clamp(min=0.3)).clamp(0, 1)
    grass = c.colour(((0.25, 0.5, 0.12), (0.45, 0.62, 0.2), (0.18, 0.42, 0.15), (0.55, 0.6, 0.25)), 0.06)
    blades = c.noise(14, 60) * 0.6 + c.noise(40, 80) * 0.4
    patches = c.clouds(5, 4, 3)
    grass = grass * (0.62 + 0.5 * patches) + (blades - 0.5) * (0.2 + 0.4 * depth)
    bloom = c.colour(((0.95, 0.85, 0.2), (0.95, 0.95, 0.95), (0.8, 0.25, 0.35), (0.6, 0.4, 0.8)), 0.05)
    flowers = ((c.noise(26, 30) - c.uniform(0.78, 0.95)) * 12).clamp(0, 1) * depth.sqrt() * c.chance(0.7)
    return blend(image, blend(grass, bloom, flowers), c.below(line))


def _forest(c: Canvas) -> Tensor:
    leaf = c.colour(((0.08, 0.22, 0.08), (0.12, 0.3, 0.12), (0.2, 0.32, 0.1), (0.32, 0.26, 0.08)), 0.04)
    shine = c.colour(((0.45, 0.62, 0.25), (0.6, 0.7, 0.35), (0.65, 0.5, 0.2)), 0.06)
    canopy = c.clouds(8, 8, 3, 0.8)
    image = blend(leaf * 0.7, shine, (canopy * (1.15 - 0.6 * c.y)).clamp(0, 1).pow(2))
    floor = c.colour(((0.3, 0.22, 0.12), (0.22, 0.28, 0.1), (0.35, 0.2, 0.1)), 0.05) * (0.5 + c.clouds(14, 8, 2))
    image = blend(image, floor, c.below(c.uniform(0.72, 0.95) + 0.06 * (c.ridge(3) - 0.5), 4))
    bark = c.colour(((0.2, 0.14, 0.09), (0.32, 0.25, 0.2), (0.6, 0.58, 0.54), (0.14, 0.11, 0.1)), 0.04)
    grain = c.noise(24, 40)
    for step in range(7):  # far and thin first, near and thick last
        near = (step + 1) / 7
        middle = c.uniform(-0.05, 1.05) + c.uniform(-0.12, 0.12) * (c.y - 0.5)
        radius = c.uniform(0.008, 0.026) * (0.7 + 2.0 * near) * (0.8 + 0.4 * c.y)
        inside = (c.x - middle) / radius
        trunk = blend(leaf + 0.08, bark, torch.tensor(0.45 + 0.55 * near))
        trunk = trunk * (0.75 + 0.5 * grain) * (1.0 - 0.45 * inside.clamp(-1, 1))
        foot = 1 - c.below(c.uniform(0.72, 0.8) + 0.25 * near)
        image = blend(image, trunk, c.within((c.x - middle).abs(), radius) * foot * c.chance(0.85))
    return image


def _brick_wall(c: Canvas) -> Tensor:
    v, u = c.rotated(5, 0.35)
    rows = torch.floor(c.uniform(6, 13))
    v = v * rows
    row = torch.floor(v)
    u = u * rows * c.uniform(0.38, 0.55) + 0.5 * torch.remainder(row, 2) + c.uniform(0, 1)
    column = torch.floor(u)
    gap = c.uniform(0.05, 0.1)
    at_v, at_u = v - row, u - column
    edge = torch.minimum(torch.minimum(at_v, 1 - at_v), 2.1 * torch.minimum(at_u, 1 - at_u))
    brick = ((edge - gap) / (c.pixel * rows) + 0.5).clamp(0, 1)
    base = c.colour(
        ((0.6, 0.25, 0.18), (0.7, 0.38, 0.26), (0.5, 0.3, 0.25), (0.75, 0.65, 0.55), (0.45, 0.2, 0.2)), 0.06
    )
    tone = 0.72 + 0.5 * c.hashed(row, column) + 0.35 * (c.clouds(16, 16, 2) - 0.5)
    mortar = c.colour(((0.75, 0.72, 0.68), (0.55, 0.52, 0.5), (0.88, 0.86, 0.82)), 0.05)
    return blend(mortar * (0.85 + 0.3 * c.noise(30, 30)), base * tone, brick)


def _wooden_floor(c: Canvas) -> Tensor:
    v, u = c.rotated(25, 0.6)
    planks = c.uniform(5, 10)
    u = u * planks
    plank = torch.floor(u)
    at = u - plank
    v = v * c.uniform(1, 2) + c.hashed(plank)
    board = torch.floor(v)
    along = v - board
    wood = c.colour(((0.62, 0.42, 0.22), (0.8, 0.6, 0.36), (0.42, 0.26, 0.14), (0.72, 0.5, 0.34)), 0.05)
    tone = 0.75 + 0.4 * c.hashed(plank, board)
    rings = at * c.uniform(5, 11) + 1.6 * c.noise(3, 8) + 6 * c.hashed(plank, board + 50)
    grain = torch.sin(rings * 3.1) * 0.09 + 0.16 * (c.noise(5, 64) - 0.5)
    joint = torch.minimum(torch.minimum(at, 1 - at), 3.5 * torch.minimum(along, 1 - along))
    seam = 1 - ((joint - 0.02) / (c.pixel * planks) + 0.5).clamp(0, 1)
    return blend(wood * (tone + grain), wood * 0.3, seam * c.uniform(0.6, 1.0))


def _checker_floor(c: Canvas) -> Tensor:
    horizon = c.uniform(-0.3, 0.32)
    depth = (c.y - horizon).clamp(min=0.02)
    distance = c.uniform(0.35, 0.7) / depth
    angle = c.uniform(-0.9, 0.9)
    across = (c.x - c.uniform(0.2, 0.8)) * distance * 1.6
    tiles = c.uniform(2.5, 4.5)
    a = tiles * (torch.cos(angle) * across - torch.sin(angle) * distance) + c.uniform(0, 1)
    b = tiles * (torch.sin(angle) * across + torch.cos(angle) * distance) + c.uniform(0, 1)
    width = (c.pixel * tiles * distance * 2.2).clamp(min=1e-3)  # pixels blur the far tiles into each other
    sides = [((torch.remainder(t, 2) - 1).abs() - 0.5) / width for t in (a, b)]
    square = sides[0].clamp(-0.5, 0.5) * sides[1].clamp(-0.5, 0.5) * 2 + 0.5
    light = c.colour(((0.92, 0.9, 0.85), (0.85, 0.8, 0.7), (0.8, 0.85, 0.9), (0.9, 0.75, 0.6)), 0.06)
    dark = c.colour(((0.1, 0.1, 0.12), (0.45, 0.12, 0.12), (0.15, 0.2, 0.4), (0.15, 0.32, 0.22)), 0.05)
    floor = blend(dark, light, square) * (0.85 + 0.3 * c.clouds(4, 4, 2))
    wall = c.colour(((0.85, 0.82, 0.75), (0.7, 0.75, 0.8), (0.6, 0.45, 0.4), (0.5, 0.55, 0.5)), 0.08)
    wall = wall * (0.85 + 0.15 * torch.sin(c.x * c.uniform(20, 60)).sign() * c.chance(0.5))
    return blend(wall, floor, c.below(horizon + 0.04))


def _night_city(c: Canvas) -> Tensor:
    night = c.colour(((0.03, 0.04, 0.12), (0.1, 0.06, 0.2), (0.06, 0.1, 0.22), (0.02, 0.02, 0.05)), 0.03)
    glow = c.colour(((0.45, 0.25, 0.2), (0.35, 0.2, 0.4), (0.2, 0.25, 0.45)), 0.06)
    image = blend(night, glow, c.y.pow(2) * c.uniform(0.3, 0.9))
    stars = ((c.noise(64, 64) - 0.93) * 14).clamp(0, 1) * (1 - c.y)
    image = image + stars * c.chance(0.6) * 0.9
    moon = ((c.y - c.uniform(0.08, 0.25)) ** 2 + (c.x - c.uniform(0.1, 0.9)) ** 2).sqrt()
    image = blend(image, torch.tensor([0.95, 0.93, 0.8]).view(1, 3, 1, 1), c.within(moon, 0.06) * c.chance(0.4))
    lamp = c.colour(((1.0, 0.85, 0.45), (1.0, 0.95, 0.8), (0.75, 0.9, 1.0)), 0.05)
    for layer in range(3):
        count = c.uniform(4, 8)
        u = c.x * count + c.uniform(0, 9)
        house = torch.floor(u)
        roof = 0.22 + 0.17 * layer + 0.38 * c.hashed(house) + c.uniform(-0.06, 0.1)
        wall = blend(glow, night, torch.tensor(0.45 + 0.25 * layer)) * 0.8 + 0.07 * c.hashed(house, house)
        storeys, panes = c.uniform(16, 26), count * torch.floor(c.uniform(3, 5))
        v, w = c.y * storeys, c.x * panes
        lit = (c.hashed(house * 7 + torch.floor(w), torch.floor(v)) < c.uniform(0.3, 0.6)).float()
        pane = c.within((torch.frac(v) - 0.5).abs() / storeys, 0.3 / storeys)
        pane = pane * c.within((torch.frac(w) - 0.5).abs() / panes, 0.3 / panes)
        image = blend(
            image, blend(wall, lamp, lit * pane * 0.95), c.below(roof) * c.within((u - house - 0.5).abs(), 0.47)
        )
    return image


def _desert(c: Canvas) -> Tensor:
    image = _heaven(c, 0.45)
    sand = c.colour(((0.85, 0.62, 0.35), (0.92, 0.76, 0.5), (0.75, 0.45, 0.25), (0.88, 0.68, 0.5)), 0.05)
    line = c.uniform(0.12, 0.42)
    shady = c.uniform(0.5, 0.72)
    side = c.chance(0.5) * 2 - 1
    for step in range(4):
        crest = line + 0.28 * (c.ridge(2 + step // 2, 1, smooth=True) - 0.5)
        depth = ((c.y - crest) / 0.3).clamp(0, 1)
        lean = side * (c.x + 0.5 * c.y) * c.uniform(2.5, 5) + 1.4 * c.noise(2, 2) + c.uniform(0, 2)
        lit = (0.5 + 0.5 * torch.sin(3.1 * lean)) ** 0.7
        waves = c.uniform(70, 130) * (c.y + 0.3 * side * c.x + 0.14 * c.noise(3, 3))
        tone = blend(shady, torch.ones(1, 1, 1, 1), (lit * (1 - 0.6 * depth) + 0.6 * depth).clamp(0, 1))
        dune = sand * tone * (0.9 + 0.05 * step) + 0.03 * torch.sin(waves) * depth
        image = blend(image, dune, c.below(crest))
        line = line + c.uniform(0.14, 0.26)
    return image


def _snow(c: Canvas) -> Tensor:
    image = _heaven(c, 0.1)
    snow = c.colour(((0.93, 0.95, 0.98), (0.88, 0.91, 0.97), (0.97, 0.95, 0.95)), 0.03)
    rock = c.colour(((0.35, 0.38, 0.45), (0.25, 0.28, 0.35), (0.45, 0.42, 0.42)), 0.05)
    peak = c.uniform(0.1, 0.35) + 0.45 * (c.ridge(3, 4, 0.55) - 0.35)
    height = ((c.y - peak) / 0.4).clamp(0, 1)
    facets = 0.6 * c.ridge(14, 2) + 0.4 * c.noise(7, 22)
    bare = ((facets - c.uniform(0.5, 0.62) + 0.35 * (height - 0.3)) * 7).clamp(0, 1)
    rock = rock * (0.8 + 0.5 * c.clouds(10, 12, 2))
    image = blend(image, blend(snow, rock, bare), c.below(peak))
    ground = c.uniform(0.5, 0.72) + 0.1 * (c.ridge(2, 2) - 0.5)
    drift = snow * (0.86 + 0.2 * c.clouds(6, 3, 3))
    firs = ((ground - c.y) < 0.13 * (c.ridge(22, 1) * c.ridge(4, 1) * 1.8 - 0.25)).float()
    image = blend(image, c.colour(((0.08, 0.16, 0.14), (0.14, 0.2, 0.22)), 0.03), firs * c.chance(0.75))
    image = blend(image, drift, c.below(ground, 1.5))
    flakes = ((c.noise(48, 48) - c.uniform(0.86, 0.95)) * 10).clamp(0, 1) * c.chance(0.4)
    return blend(image, torch.ones(1, 3, 1, 1), flakes)


_PAINTERS: dict[str, Callable[[Canvas], Tensor]] = {
    "sky": _sky,
    "sea": _sea,
    "meadow": _meadow,
    "forest": _forest,
    "brick_wall": _brick_wall,
    "wooden_floor": _wooden_floor,
    "checker_floor": _checker_floor,
    "night_city": _night_city,
    "desert": _desert,
    "snow": _snow,
}
#: names of the drawn categories, in the order of their labels
SCENE_CATEGORIES = tuple(_PAINTERS)
