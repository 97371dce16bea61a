"""Building blocks of drawn scenes: noise, gradients, edges and colours for a whole batch at once.

A canvas holds N pictures of H x W; everything returns (N, 1, H, W) in [0, 1] or (N, 3, 1, 1) colours. Lengths are in
fractions of the picture, so that a scene looks the same at any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Canvas", "blend"]


def blend(below: Tensor, above: Tensor, cover: Tensor) -> Tensor:
    """``above`` over ``below`` where ``cover`` is 1."""
    return below + (above - below) * cover


class Canvas:
    """N pictures of H x W to draw on, with the random numbers to do it."""

    def __init__(self, n: int, size: tuple[int, int], generator: torch.Generator) -> None:
        self.n, self.height, self.width = n, size[0], size[1]
        self.generator = generator
        self.y = ((torch.arange(size[0]) + 0.5) / size[0]).view(1, 1, -1, 1)
        self.x = ((torch.arange(size[1]) + 0.5) / size[1]).view(1, 1, 1, -1)
        self.pixel = 1.0 / min(size)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers (N, 1, 1, 1), or (N, *shape)."""
        draws = torch.rand(self.n, *(shape or (1, 1, 1)), generator=self.generator)
        return low + (high - low) * draws

    def chance(self, probability: float) -> Tensor:
        """1 with a probability, else 0, (N, 1, 1, 1)."""
        return (self.uniform(0, 1) < probability).float()

    def colour(self, palette: Sequence[tuple[float, float, float]], spread: float = 0.08) -> Tensor:
        """One colour a picture, (N, 3, 1, 1): a random mixture of two of the palette's, jittered, lighter or darker."""
        colours = torch.tensor(palette)
        pick = torch.randint(len(palette), (2, self.n), generator=self.generator)
        share = self.uniform(0, 1, 1)
        mixed = colours[pick[0]] * share + colours[pick[1]] * (1 - share)
        jitter = self.uniform(-spread, spread, 3) + self.uniform(-spread, spread, 1)
        return (mixed + jitter).clamp(0, 1).view(self.n, 3, 1, 1)

    def noise(self, rows: int, columns: int) -> Tensor:
        """Smooth noise of rows x columns bumps, (N, 1, H, W) in [0, 1]; never finer than the pixels."""
        cells = (min(rows, self.height) + 1, min(columns, self.width) + 1)
        coarse = torch.rand(self.n, 1, *cells, generator=self.generator)
        smooth = F.interpolate(coarse, (self.height, self.width), mode="bicubic", align_corners=True)
        return smooth.clamp(0, 1)

    def clouds(self, rows: int, columns: int, octaves: int = 4, roughness: float = 0.55) -> Tensor:
        """Fractal noise (N, 1, H, W) in [0, 1]: each octave twice as fine and ``roughness`` times as strong."""
        total = torch.zeros(self.n, 1, self.height, self.width)
        weight = 0.0
        for octave in range(octaves):
            strength = roughness**octave
            total += strength * self.noise(rows << octave, columns << octave)
            weight += strength
        return ((total / weight - 0.5) * 1.6 + 0.5).clamp(0, 1)

    def ridge(self, bumps: int, octaves: int = 3, roughness: float = 0.5, *, smooth: bool = False) -> Tensor:
        """A random line over the columns, (N, 1, 1, W) in [0, 1], jagged (mountains) or smooth (dunes, hills)."""
        total = torch.zeros(self.n, 1, 1, self.width)
        weight = 0.0
        for octave in range(octaves):
            strength = roughness**octave
            coarse = torch.rand(self.n, 1, 1, min(bumps << octave, self.width) + 1, generator=self.generator)
            mode = "bicubic" if smooth else "bilinear"
            total += strength * F.interpolate(coarse, (1, self.width), mode=mode, align_corners=True)
            weight += strength
        return total / weight

    def below(self, line: Tensor, softness: float = 1.0) -> Tensor:
        """1 under a line at height ``line`` (fraction from the top), with an edge ``softness`` pixels wide."""
        return ((self.y - line) / (softness * self.pixel) + 0.5).clamp(0, 1)

    def within(self, distance: Tensor, radius: Tensor | float, softness: float = 1.0) -> Tensor:
        """1 where ``distance`` is less than ``radius``, with an edge ``softness`` pixels wide."""
        return ((radius - distance) / (softness * self.pixel) + 0.5).clamp(0, 1)

    def rotated(self, degrees: float, tilt: float = 0.0) -> tuple[Tensor, Tensor]:
        """Coordinates (y, x) of the plane, turned about the centre by up to +- degrees and seen from up to +- tilt."""
        angle = self.uniform(-degrees, degrees) * (math.pi / 180)
        y, x = self.y - 0.5, self.x - 0.5
        cosine, sine = torch.cos(angle), torch.sin(angle)
        v, u = cosine * y - sine * x, sine * y + cosine * x
        depth = 1 + self.uniform(-tilt, tilt) * u + self.uniform(-tilt, tilt) * v
        return v / depth + 0.5, u / depth + 0.5

    def hashed(self, *cells: Tensor) -> Tensor:
        """A random number in [0, 1) for every integer cell, the same over the whole cell, other in every picture."""
        mixed = self.uniform(0, 1000)
        for position, cell in enumerate(cells):
            mixed = mixed + cell * (127.1 + 184.6 * position)
        return torch.frac(torch.sin(mixed) * 43758.5453).abs()

    def light(self, image: Tensor) -> Tensor:
        """Light from one side, exposure, haze and a little grain, as photographs of one kind of place have them."""
        across, down = self.uniform(-0.18, 0.18), self.uniform(-0.12, 0.12)
        shade = 1 + across * (2 * self.x - 1) + down * (2 * self.y - 1)
        image = image * shade * self.uniform(0.8, 1.12)
        image = blend(image, self.uniform(0.35, 0.8), self.uniform(0, 0.15))
        grain = torch.randn(self.n, 3, self.height, self.width, generator=self.generator)
        return (image + grain * self.uniform(0.0, 0.03)).clamp(0, 1)
