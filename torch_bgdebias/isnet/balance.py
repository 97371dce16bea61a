"""Balances the heatmap loss against the network's own loss, so that its gradient does not dominate.

Relevance is a gradient, and the gradient of a gradient can be of any size: on a pretrained network the heatmap loss's
was 20 to 60 times the cross-entropy's, the papers' a thousand times and more (``experiments/photos``). Steps are then
the heatmaps' alone, and the network forgets its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.checks import check_count
from torch_bgdebias.precision import working_dtype

__all__ = ["GradientBalance"]

#: of the running means of the logarithms, a measurement
_DECAY = 0.8


class GradientBalance:
    """Scales the heatmap loss so that its gradient is at most ``limit`` times that of the network's own loss.

    Both norms, over all parameters, are measured in the first eight steps and in every ``every``-th after them: running
    geometric means, so that one sample of a thousand times the usual gradient does not count as a thousand. Where the
    own loss's norm is below 1, 1 takes its place: a network that has learned its images by their backgrounds has
    hardly any gradient left, and is to be changed all the same. A measurement costs one backward pass of each loss; the
    device is not waited for.

    Args:
        limit: above 0.
        every: steps between measurements.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import torch
        >>> weight = torch.ones(1, requires_grad=True)
        >>> balance = GradientBalance()
        >>> added = balance(weight.sum() * 2, weight.sum() * 50, [weight])
        >>> round(float(added), 3), round(float(balance.scale), 3)
        (2.0, 0.04)
    """

    def __init__(self, limit: float = 1.0, *, every: int = 8) -> None:
        if not 0.0 < limit < float("inf"):
            raise ValueError(f"limit: expected above 0, got {limit!r}")
        self.limit, self.every = limit, check_count(every, name="every", least=1)
        #: steps seen
        self.steps = 0
        self._means: Tensor | None = None

    @property
    def scale(self) -> Tensor:
        """The factor of the heatmap loss, at most 1, a scalar on the device."""
        if self._means is None:
            return torch.ones(())
        own_norm, heatmap = self._means.exp().unbind()
        # nothing finite measured so far: the heatmap loss waits
        return (self.limit * own_norm.clamp(min=1.0) / heatmap).clamp(max=1.0).nan_to_num(0.0)

    def __call__(
        self,
        loss: Tensor,
        heatmap: Tensor,
        parameters: Iterable[Tensor],
        *,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The heatmap loss, scaled; its value is smaller by as much as its gradient.

        Args:
            loss: the network's own, a scalar; its graph stays.
            heatmap: the heatmap loss, a scalar; its graph stays.
            parameters: of the network.
            reduce: the mean over several processes.
        """
        if self.steps < 8 or self.steps % self.every == 0:
            self._measure(loss, heatmap, [p for p in parameters if p.requires_grad], reduce)
        self.steps += 1
        return heatmap * self.scale.to(heatmap.device)

    def _measure(
        self, loss: Tensor, heatmap: Tensor, parameters: Sequence[Tensor], reduce: Callable[[Tensor], Tensor] | None
    ) -> None:
        if not parameters or not loss.requires_grad or not heatmap.requires_grad:
            return
        norms = torch.stack([_norm(term, parameters) for term in (loss, heatmap)])
        logs = norms.clamp(min=1e-12).log()
        logs = logs if reduce is None else reduce(logs)
        means = torch.full_like(logs, torch.nan) if self._means is None else self._means
        means = means.to(logs.device, non_blocking=True)
        updated = torch.where(means.isfinite(), torch.lerp(means, logs, 1 - _DECAY), logs)
        # not finite where mixed precision overflowed, in steps that are skipped
        self._means = torch.where(logs.isfinite().all(), updated, means)

    def state_dict(self) -> dict[str, Any]:
        """The steps seen and the means."""
        return {"steps": self.steps, "means": None if self._means is None else self._means.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        means = state["means"]
        self.steps = check_count(state["steps"], name="steps", least=0)
        self._means = None if means is None else torch.tensor(means, dtype=torch.float32)


def _norm(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The norm of a loss's gradient over all parameters, in float32."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    norms = [
        torch.linalg.vector_norm(g.detach(), dtype=working_dtype(g.dtype)).float() for g in gradients if g is not None
    ]
    if not norms:
        return torch.zeros((), device=loss.device)
    total_norm: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(loss.device) for norm in norms]))
    return total_norm
