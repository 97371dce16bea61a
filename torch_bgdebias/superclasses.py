"""Scores a network of many classes on fewer: several of its outputs stand for one class of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.checks import check_count, check_option, describe
from torch_bgdebias.models import LogitsKey, logits_of
from torch_bgdebias.names import SUPERCLASS_SCORES
from torch_bgdebias.probabilities import without_softmax

__all__ = ["Superclasses"]


@dataclass(frozen=True)
class Superclasses:
    """Turns a model's output into logits of superclasses; to be passed as ``logits=``.

    Outputs that belong to no superclass become a last one, "none of them", which is always wrong; it is left out where
    every output belongs to one. Outputs that are a softmax's already are taken for what they are.

    Args:
        groups: the model's outputs of each superclass, K of them.
        how: ``"best"``: the largest logit of the group, so that the answer is the group of the network's own answer;
            ``"sum"``: the logarithm of the summed probabilities, so that many small ones count together.
        logits: where the logits are in the model's output, as everywhere.

    Raises:
        ValueError: an empty group, an output in two groups, or another ``how``.

    Example:
        >>> import torch
        >>> birds_and_dogs = Superclasses([[0, 1], [3]])
        >>> birds_and_dogs(torch.tensor([[1.0, 4.0, 2.0, 3.0]])).tolist()
        [[4.0, 3.0, 2.0]]
    """

    groups: Sequence[Sequence[int]]
    how: str = "best"
    logits: LogitsKey = None

    def __post_init__(self) -> None:
        check_option(self.how, SUPERCLASS_SCORES, name="how")
        groups = tuple(tuple(group) for group in self.groups)
        object.__setattr__(self, "groups", groups)
        owner_of: dict[int, int] = {}
        for number, group in enumerate(groups):
            if not group:
                raise ValueError(f"groups: expected at least one output for each superclass, got none for {number}")
            for output in group:
                check_count(output, name="groups", least=0)
                if owner_of.setdefault(output, number) != number:
                    raise ValueError(f"groups: output {output} is in superclass {owner_of[output]} and in {number}")

    def count(self, outputs: int) -> int:
        """How many classes there are to be scored, "none of them" among them, for a model with so many outputs."""
        return len(self.groups) + (outputs > len({output for group in self.groups for output in group}))

    def __call__(self, output: Any) -> Tensor:
        """The superclasses' logits, (B, K), or (B, K + 1) with "none of them"; differentiable.

        Raises:
            ValueError: the model has fewer outputs than the groups name.
        """
        logits = logits_of(output, self.logits)
        largest = max(max(group) for group in self.groups)
        if logits.ndim != 2 or logits.shape[1] <= largest:
            raise ValueError(f"groups: expected logits (B, K) with K above {largest}, got {describe(logits)}")
        logits, classes = without_softmax(logits), self.count(logits.shape[1])
        class_of_output = torch.full((logits.shape[1],), classes - 1, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            class_of_output[list(group)] = number
        class_index = class_of_output.to(logits.device).expand(len(logits), -1)
        if self.how == "best":
            return logits.new_full((len(logits), classes), -torch.inf).scatter_reduce(1, class_index, logits, "amax")
        probability = logits.new_zeros(len(logits), classes).scatter_add(1, class_index, logits.softmax(1))
        return probability.clamp_min(torch.finfo(logits.dtype).tiny).log()
