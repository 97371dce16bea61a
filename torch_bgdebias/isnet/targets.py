"""The scalar of the logits that each ISNet variant explains, one per map (S-FI, section 3; S-IS)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from torch_bgdebias.checks import check_option, describe
from torch_bgdebias.lrp.scalars import Target, chosen
from torch_bgdebias.precision import working_precision

__all__ = [
    "DUAL_TARGETS",
    "VARIANTS",
    "DualTarget",
    "Target",
    "Variant",
    "contrast_signs",
    "explained",
    "lowest_log_odds",
    "random_contrast",
    "random_logit",
]

Variant: TypeAlias = Literal["selective", "stochastic", "dual", "original"]
VARIANTS: tuple[Variant, ...] = ("selective", "stochastic", "dual", "original")
DualTarget: TypeAlias = Literal["sum", "contrast"]
DUAL_TARGETS: tuple[DualTarget, ...] = ("sum", "contrast")


def explained(
    variant: Variant,
    logits: Tensor,
    target: Target = None,
    *,
    selective_eps: float | None = None,
    multi_label: bool = False,
    dual_target: DualTarget = "contrast",
    positive: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The scalars to explain (B, M), differentiable, at least float32.

    Args:
        variant: see `ISNet`; "dual" gives two (M = 2): what LRP-z+ and LRP-epsilon propagate.
        logits: (B, K), or (B,) of one logit.
        target: classes, weights or a function (`torch_bgdebias.lrp.scalars.chosen`) instead of the variant's
            own choice.
        selective_eps: e of the papers' form of the selective variant; ``None`` for exact log-odds.
        multi_label: probabilities are sigmoids rather than a softmax.
        dual_target: the second of the dual variant: the logits' `random_contrast`, or the sum of all.
        positive: the first of the dual variant is the sum of the positive logits rather than of all.
        generator: for the random choices, on the logits' device.
    """
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2:
        raise ValueError(f"model output: expected logits (B, K), got {describe(logits)}")
    logits = working_precision(logits)
    if target is not None:
        return chosen(logits, target)
    check_option(variant, VARIANTS, name="variant")
    if variant == "selective":
        return lowest_log_odds(logits, selective_eps, multi_label=multi_label)[:, None]
    if variant == "stochastic":
        return logits.gather(1, random_logit(logits, generator)[:, None])
    if variant == "original":
        return logits
    check_option(dual_target, DUAL_TARGETS, name="dual_target")
    scalar = (logits.relu() if positive else logits).sum(1)
    contrast = logits.sum(1) if dual_target == "sum" else random_contrast(logits, generator)
    return torch.stack([scalar, contrast], 1)


def lowest_log_odds(logits: Tensor, eps: float | None = None, *, multi_label: bool = False) -> Tensor:
    """eta (B,): the log-odds of the lowest logit's probability p.

    Exactly z_c - logsumexp of the other logits, or with ``eps`` the papers' log(p + eps) - log(1 - p + eps), which goes
    flat when p is much smaller than eps. One logit alone, or ``multi_label``: p is its sigmoid and eta the logit.
    """
    lowest = logits.argmin(1, keepdim=True)
    lowest_logit = logits.gather(1, lowest)
    if multi_label or logits.shape[1] == 1:
        eta = lowest_logit
    else:
        eta = lowest_logit - logits.scatter(1, lowest, -torch.inf).logsumexp(1, keepdim=True)
    if eps is not None:
        eta = torch.log(torch.sigmoid(eta) + eps) - torch.log(torch.sigmoid(-eta) + eps)
    return eta.squeeze(1)


def random_logit(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Classes (B,): the highest logit's with probability 1/2, else one of the others, all equally likely."""
    batch, classes = logits.shape
    top = logits.detach().argmax(1)
    if classes == 1:
        return top
    device = logits.device
    random_class = torch.randint(classes - 1, (batch,), device=device, generator=generator)
    random_class = random_class + (random_class >= top)
    keep = torch.rand(batch, device=device, generator=generator) < 0.5
    return torch.where(keep, top, random_class)


def random_contrast(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """sum_k v_k z_k (B,), v_k = 1 or -1 at random for each sample and class, never all of them the same.

    A softmax decides by differences of logits. In their plain sum a cue that raises one logit and lowers the others
    cancels; with random signs the expected square is the sum of every logit's square, at the price of one map. Equal
    signs would be the plain sum again, half of all draws with two classes: one random class has 1 and another -1.
    """
    return (logits * contrast_signs(logits, generator)).sum(1)


def contrast_signs(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The signs (B, K) of `random_contrast`, in the logits' dtype; with one class just 1 or -1."""
    batch, classes = logits.shape

    def draw(high: int, columns: int) -> Tensor:
        return torch.randint(high, (batch, columns), device=logits.device, generator=generator)

    signs = draw(2, classes) * 2 - 1
    if classes > 1:
        positive_class = draw(classes, 1)
        negative_class = (positive_class + 1 + draw(classes - 1, 1)) % classes
        signs = signs.scatter(1, positive_class, 1).scatter(1, negative_class, -1)
    return signs.to(logits.dtype)
