"""``AuditSettings``: what an audit examines and how thoroughly, validated once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_bgdebias.checks import check_confidence, check_count, check_mean_std

__all__ = ["AuditSettings"]


@dataclass(frozen=True)
class AuditSettings:
    """Options of `torch_bgdebias.audit.audit`.

    Args:
        images: at most so many pictures are looked at, drawn evenly from the classes; ``None``: all.
        permutations: shuffled labellings, of which one more than this is the smallest p-value's inverse.
        level: upper bound in (0, 1) on the chance of any finding where nothing depends on the class.
        folds: of the cross-validation.
        seed: of the choice of pictures, the folds, the shuffles and the drawn hidden layers.
        examples: pictures that give most away, a finding.
        mean: what was subtracted from a data set's tensors, for those that are not in [0, 1].
        std: what they were divided by.
        backbone: ``timm:NAME``, ``torchvision:NAME`` or ``package:attribute``: its embedding of the background is a cue
            as well.
        pretrained: the weights that timm or torchvision publish.
        checkpoint: weights of the backbone in a file.

    Raises:
        ValueError: a number out of range.
    """

    images: int | None = 4000
    permutations: int = 999
    level: float = 0.05
    folds: int = 5
    seed: int = 0
    examples: int = 8
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    backbone: str | None = None
    pretrained: bool = False
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            check_count(self.images, name="images", least=20)
        check_count(self.permutations, name="permutations", least=99)
        check_confidence(self.level, name="level")
        check_count(self.folds, name="folds", least=2)
        check_count(self.seed, name="seed", least=0)
        check_count(self.examples, name="examples", least=0)
        check_mean_std(self.mean, self.std)
        if (self.permutations + 1) * self.level < 2:
            fewest = round(2 / self.level)
            raise ValueError(
                f"permutations: expected at least {fewest} for level {self.level:g}, got {self.permutations}"
            )
