"""KernelSHAP (Lundberg and Lee, 2017, arXiv 1705.07874) of superpixels, for a whole batch at once.

Shapley values phi of M superpixels are the weighted least-squares fit of the class's score by sum_i z_i phi_i over
coalitions z, with f(baseline) + sum phi = f(image). The coalitions do not depend on the image, so one set of them and
one factorisation serve the whole batch, and the model sees full batches throughout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.attribution.targets import target_class
from torch_bgdebias.checks import check_count, check_finite, check_image, check_option, describe
from torch_bgdebias.models import LogitsKey, eval_mode, logits_of
from torch_bgdebias.probabilities import without_softmax

__all__ = ["Baseline", "KernelShap", "KernelShapSettings", "kernel_shap", "sample_coalitions", "superpixels"]

#: what an absent superpixel shows: a named rule, images of the batch's shape, or a pool (N, C, H, W) to average over
Baseline: TypeAlias = "Literal['mean', 'blur', 'black'] | Tensor"


@dataclasses.dataclass(frozen=True, eq=False)  # tensors have no one answer to ==
class KernelShapSettings:
    """Options of `kernel_shap`, which explains them.

    Raises:
        ValueError: an unknown baseline by name, or a number out of range.
    """

    segments: Tensor | tuple[int, int] = (7, 7)
    samples: int = 1000
    baseline: Baseline = "mean"
    logits: LogitsKey = None
    probability: bool = False
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_count(self.samples, name="samples", least=2)
        if isinstance(self.baseline, str):
            check_option(self.baseline, ("mean", "blur", "black"), name="baseline")
        if self.chunk is not None:
            check_count(self.chunk, name="chunk")

    def scores(self, model: nn.Module | Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """What is explained of each class (B, K)."""
        output = logits_of(model(batch), self.logits).float()
        return without_softmax(output).softmax(1) if self.probability else output

    def images_in_a_pass(self, image: Tensor) -> int:
        """How many masked images go through the model together."""
        if self.chunk is not None:
            return self.chunk
        fitting = 2**18 // (image.shape[2] * image.shape[3]) if image.device.type == "cpu" else 256
        return max(1, min(256, fitting))


class KernelShap(NamedTuple):
    """Attributions and what they were computed from."""

    attribution: Tensor  #: (B, 1, H, W), the superpixel's value at each of its pixels
    values: Tensor  #: (B, M) Shapley values
    base: Tensor  #: (B,) score of the baseline
    score: Tensor  #: (B,) score of the image; base + values.sum(1) equals it


def superpixels(size: tuple[int, int], grid: tuple[int, int] = (7, 7), *, device: torch.device | None = None) -> Tensor:
    """Rectangular superpixels: (H, W) int64 in [0, rows * columns), of sizes that differ by at most one pixel.

    Raises:
        ValueError: more rows or columns than pixels.
    """
    if not (0 < grid[0] <= size[0] and 0 < grid[1] <= size[1]):
        raise ValueError(f"grid: expected between (1, 1) and the image's size {size}, got {grid}")
    row = torch.arange(size[0], device=device) * grid[0] // size[0]
    column = torch.arange(size[1], device=device) * grid[1] // size[1]
    return row[:, None] * grid[1] + column[None, :]


def sample_coalitions(
    features: int, samples: int, *, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Coalitions (S, M) bool, none empty and none full, drawn with the Shapley kernel's probability.

    Where ``samples`` covers all 2^M - 2 coalitions they are enumerated, otherwise each comes with its complement, which
    lowers the variance (Covert and Lee, 2021, arXiv 2012.01536). `shapley_weight` gives the weights along.

    Args:
        features: M >= 2.
        samples: how many at most, >= 2.
        generator: on ``device``.
    """
    if features < 2 or samples < 2:
        raise ValueError(f"features and samples: expected at least 2 each, got {features} and {samples}")
    if features < 60 and 2**features - 2 <= samples:
        number = torch.arange(1, 2**features - 1, device=device)
        return (number[:, None] >> torch.arange(features, device=device)) & 1 == 1
    size = torch.arange(1, features, device=device, dtype=torch.float64)
    pairs = samples // 2
    sizes = torch.multinomial(1 / (size * (features - size)), pairs, replacement=True, generator=generator) + 1
    noise = torch.rand(pairs, features, generator=generator, device=device)
    # the `sizes` smallest of each row: a uniform subset of that size
    half = noise.argsort(1).argsort(1) < sizes[:, None]
    return torch.stack([half, ~half], 1).flatten(0, 1)


def shapley_weight(coalitions: Tensor) -> Tensor:
    """Weights (S,) of the least-squares fit: the kernel when all coalitions are there, 1 when they were drawn by it."""
    samples, features = coalitions.shape
    if features < 60 and samples == 2**features - 2:
        size = coalitions.sum(1)
        counts = torch.tensor([float(math.comb(features, int(k))) for k in range(features + 1)], dtype=torch.float64)
        counts = counts.to(coalitions.device)
        return (features - 1) / (counts[size] * size * (features - size))
    return torch.ones(samples, dtype=torch.float64, device=coalitions.device)


def kernel_shap(
    model: nn.Module | Callable[[Tensor], Tensor],
    image: Tensor,
    target: Tensor | int | None = None,
    *,
    segments: Tensor | tuple[int, int] = (7, 7),
    samples: int = 1000,
    baseline: Baseline = "mean",
    coalitions: Tensor | None = None,
    logits: LogitsKey = None,
    probability: bool = False,
    chunk: int | None = None,
    generator: torch.Generator | None = None,
) -> KernelShap:
    """Shapley values of superpixels for the class's score.

    Args:
        model: any classifier; runs in evaluation mode without gradients.
        image: (B, C, H, W) as the model takes it. The model sees batches in this tensor's memory format: on a CPU
            convolutions are faster with ``image.to(memory_format=torch.channels_last)``.
        target: class of each sample (B,), one for all, or ``None`` for the predicted class.
        segments: (H, W) or (B, H, W) int64 superpixels, or the rows and columns of a grid. ``values`` are in the order
            of their numbers, whichever these are.
        samples: coalitions; about 20 a superpixel.
        baseline: what absent superpixels show: ``"mean"`` colour of each image, ``"blur"`` (a wide box blur),
            ``"black"`` (zero, in the model's input units), one image (C, H, W), one each (B, C, H, W), or a
            pool (N, C, H, W) of other images, drawn anew for every coalition.
        coalitions: (S, M) bool instead of drawing them.
        logits: where the logits are in the model's output.
        probability: explain softmax probabilities instead of logits.
        chunk: images in one forward pass: what decides memory. By default 256, on a CPU at most 2^18 pixels of them
            (64 images of 64 x 64), since larger maps leave the caches.
        generator: for coalitions and pool, on the image's device.

    Raises:
        ValueError: no image, superpixels of another size, coalitions of another number of them, or too few to determine
            the values.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> shap = kernel_shap(model, torch.rand(2, 3, 8, 8), segments=(2, 2), samples=14)
        >>> bool(torch.allclose(shap.base + shap.values.sum(1), shap.score, atol=1e-4))
        True
    """
    settings = KernelShapSettings(segments, samples, baseline, logits, probability, chunk)
    check_finite(check_image(image), name="image")
    if len(image) == 0:
        raise ValueError("image: expected at least one image, got none")
    segment = _segments(segments, image)
    with torch.no_grad(), eval_mode(model) if isinstance(model, nn.Module) else torch.no_grad():
        score = partial(settings.scores, model)
        features = int(segment.max()) + 1
        if coalitions is None:
            coalitions = sample_coalitions(features, samples, generator=generator, device=image.device)
        elif coalitions.dtype != torch.bool or coalitions.ndim != 2 or coalitions.shape[1] != features:
            raise ValueError(f"coalitions: expected bool (S, {features}), got {describe(coalitions)}")
        full = check_finite(score(image), name="logits")
        classes = target_class(full, target)
        absent = _Absent(baseline, image, generator)
        base = absent.base_score(score, classes)
        value = full.gather(1, classes[:, None])[:, 0]
        masked = _Masked(image, segment, coalitions, absent)
        scores = _coalition_scores(score, masked, classes, settings.images_in_a_pass(image))
        check_finite(scores.T, name="logits of images with superpixels taken away")
    values = _solve(coalitions, scores, base, value)
    attribution = values.gather(1, segment.flatten(1)).reshape(image.shape[0], 1, *image.shape[2:])
    return KernelShap(attribution, values, base, value)


class _Absent:
    """The pixels that absent superpixels show."""

    def __init__(self, baseline: Baseline, image: Tensor, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.pool: Tensor | None = None
        self.images: Tensor
        if isinstance(baseline, str):
            self.images = _named_baseline(baseline, image)
        elif isinstance(baseline, Tensor) and baseline.shape[-3:] == image.shape[1:] and baseline.ndim in (3, 4):
            baseline = baseline.to(image)
            if baseline.ndim == 4 and baseline.shape[0] != image.shape[0]:
                self.pool = baseline
            self.images = baseline.expand_as(image) if self.pool is None else image
        else:
            expected = f"'mean', 'blur', 'black' or images (N, {', '.join(map(str, image.shape[1:]))})"
            raise ValueError(f"baseline: expected {expected}, got {describe(baseline)}")

    def take(self, sample: Tensor) -> Tensor:
        if self.pool is None:
            return self.images[sample]
        pick = torch.randint(len(self.pool), sample.shape, generator=self.generator, device=sample.device)
        return self.pool[pick]

    def base_score(self, score: Callable[[Tensor], Tensor], classes: Tensor) -> Tensor:
        if self.pool is None:
            return score(self.images).gather(1, classes[:, None])[:, 0]
        return score(self.pool).mean(0)[classes]


def _named_baseline(name: str, image: Tensor) -> Tensor:
    if name == "black":
        return torch.zeros_like(image)
    if name == "mean":
        return image.mean((2, 3), keepdim=True).expand_as(image)
    reach = max(1, min(image.shape[2:]) // 8)
    padded = F.pad(image, (reach, reach, reach, reach), mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)


def _segments(segments: Tensor | tuple[int, int], image: Tensor) -> Tensor:
    size = (image.shape[2], image.shape[3])
    segment = superpixels(size, segments, device=image.device) if isinstance(segments, tuple) else segments
    if segment.shape[-2:] != size or segment.ndim not in (2, 3) or segment.is_floating_point():
        raise ValueError(f"segments: expected int64 (H, W) or (B, H, W) of size {size}, got {describe(segment)}")
    # numbers with gaps, or from 1 on as skimage's, would be superpixels without a pixel
    places: Tensor = torch.unique(segment.to(image.device), return_inverse=True)[1]
    return places.expand(image.shape[0], *size)


class _Masked(NamedTuple):
    """The images of a batch (B, C, H, W) under every coalition (S, M) of their superpixels (B, H, W)."""

    image: Tensor
    segment: Tensor
    coalitions: Tensor
    absent: _Absent

    def take(self, sample: Tensor, coalition: Tensor) -> Tensor:
        present = self.coalitions[coalition].gather(1, self.segment[sample].flatten(1))
        present = present.reshape(-1, 1, *self.image.shape[2:])
        masked = torch.where(present, self.image[sample], self.absent.take(sample))
        return masked.contiguous(memory_format=_memory_format(self.image))


def _coalition_scores(
    score: Callable[[Tensor], Tensor], masked: _Masked, classes: Tensor, images_in_a_pass: int
) -> Tensor:
    """(S, B) scores, in passes of ``images_in_a_pass`` images for any B, one of them in memory at a time."""
    batch, count = len(masked.image), len(masked.coalitions)
    scores = masked.image.new_empty(count * batch, dtype=torch.float32)
    for start in range(0, count * batch, images_in_a_pass):
        number = torch.arange(start, min(start + images_in_a_pass, count * batch), device=masked.image.device)
        sample = number % batch
        scores_of_pass = score(masked.take(sample, number // batch))
        scores[start : start + images_in_a_pass] = scores_of_pass.gather(1, classes[sample, None])[:, 0]
    return scores.reshape(count, batch)


def _memory_format(image: Tensor) -> torch.memory_format:
    """The format of the user's images, which indexing and ``torch.where`` would not carry over."""
    turned = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
    return torch.channels_last if turned else torch.contiguous_format


def _solve(coalitions: Tensor, scores: Tensor, base: Tensor, value: Tensor) -> Tensor:
    """Weighted least squares under sum phi = f(image) - f(baseline), by eliminating the last superpixel."""
    design = coalitions.double()
    last_column = design[:, -1:]
    reduced = design[:, :-1] - last_column
    root = shapley_weight(coalitions).sqrt()[:, None]
    gap = (value - base).double()
    aim = scores.double() - base.double() - last_column * gap
    if torch.linalg.matrix_rank(reduced * root) < reduced.shape[1]:
        raise ValueError(
            f"samples: {len(coalitions)} coalitions do not determine {coalitions.shape[1]} superpixels; take more"
        )
    phi = torch.linalg.lstsq(reduced * root, aim * root).solution.T
    return torch.cat([phi, gap[:, None] - phi.sum(1, keepdim=True)], 1).float()
