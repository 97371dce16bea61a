"""``Rules``: how ISNet explains, validated once, and the box in which the images' pixels lie."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_option, describe, values_readable
from torch_bgdebias.isnet.targets import DUAL_TARGETS, VARIANTS, DualTarget, Target, Variant, explained
from torch_bgdebias.lrp.dual import EPSILON, ZPLUS, DualPass
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.models import LogitsKey
from torch_bgdebias.stages import LAST_STAGE, last_stage

__all__ = ["Attribution", "BatchNorm", "HiddenLayers", "InputRule", "PixelBox", "RuleOptions", "Rules"]

InputRule: TypeAlias = Literal["gradient", "zbox"]
BatchNorm: TypeAlias = Literal["linear", "exact"]
Attribution: TypeAlias = Literal["lrp", "gradient"]
#: names of layers, or where relevance is taken without a name: what enters the last stage
HiddenLayers: TypeAlias = 'Sequence[str] | Literal["last-stage"] | None'
#: of the three colours, or of as many channels as the images have
Channels: TypeAlias = "Sequence[float] | Tensor | None"


class RuleOptions(TypedDict, total=False):
    """The fields of `Rules` but for ``variant``, as keyword arguments."""

    epsilon: float
    input_rule: InputRule | None
    mean: Channels
    std: Channels
    deep_supervision: HiddenLayers
    selective_eps: float | None
    batch_norm: BatchNorm
    attribution: Attribution
    dual_target: DualTarget
    logits: LogitsKey
    multi_label: bool
    at_input: bool
    exempt: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Rules:
    """What ISNet explains of a network, and by which rules.

    Args:
        variant: "selective", "stochastic", "dual" or "original".
        epsilon: stabiliser of LRP, >= 0; above 0 with "dual", which divides by sums that may be 0.
        input_rule: "zbox" or "gradient"; ``None`` takes "zbox" where ``mean`` and ``std`` are given and a layer takes
            the image.
        mean, std: per channel, of the images' normalisation; ``None`` where images are in [0, 1].
        deep_supervision: names of the layers whose outputs are explained too; "last-stage": what enters the last one.
        selective_eps: e of the papers' form of the selective variant; ``None`` for exact log-odds.
        batch_norm: "linear" or "exact".
        attribution: "lrp" or "gradient".
        dual_target: "contrast" or "sum".
        logits: where the logits are in what the model returns.
        multi_label: probabilities are sigmoids.
        at_input: explain the image too; ``False``: the layers of ``deep_supervision`` alone.
        exempt: classes whose logits are not explained, so that they may use the background.

    `torch_bgdebias.isnet.ISNet` says what each of them does.

    Raises:
        ValueError: an option out of range, or two that exclude each other.
        TypeError: ``deep_supervision`` is a string.
    """

    variant: Variant = "selective"
    epsilon: float = 1e-2
    input_rule: InputRule | None = None
    mean: Channels = None
    std: Channels = None
    deep_supervision: HiddenLayers = ()
    selective_eps: float | None = None
    batch_norm: BatchNorm = "linear"
    attribution: Attribution = "lrp"
    dual_target: DualTarget = "contrast"
    logits: LogitsKey = None
    multi_label: bool = False
    at_input: bool = True
    exempt: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_option(self.variant, VARIANTS, name="variant")
        check_option(self.input_rule, (None, "gradient", "zbox"), name="input_rule")
        check_option(self.batch_norm, ("linear", "exact"), name="batch_norm")
        check_option(self.attribution, ("lrp", "gradient"), name="attribution")
        check_option(self.dual_target, DUAL_TARGETS, name="dual_target")
        if self.selective_eps is not None and self.selective_eps <= 0:
            raise ValueError(f"selective_eps: expected None or a number > 0, got {self.selective_eps}")
        layers = self.deep_supervision
        if isinstance(layers, str) and layers != LAST_STAGE:
            raise TypeError(
                f"deep_supervision: expected a list of layer names, or {LAST_STAGE!r}, got the string {layers!r}"
            )
        set_field = object.__setattr__  # what comes as a list or a tensor stays as a tuple: rules can be compared
        set_field(self, "deep_supervision", layers if isinstance(layers, str) else tuple(layers or ()))
        set_field(self, "mean", _numbers(self.mean))
        set_field(self, "std", _numbers(self.std))
        set_field(self, "exempt", tuple(self.exempt))
        self._check_exempt()
        self._check_epsilon()
        self._check_box()
        self._check_places()

    def _check_exempt(self) -> None:
        are_class_numbers = all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in self.exempt)
        if not are_class_numbers or len(set(self.exempt)) != len(self.exempt):
            raise ValueError(f"exempt: expected different classes, numbers from 0, got {list(self.exempt)}")
        if self.exempt and self.variant == "selective":
            raise ValueError(
                "exempt: the selective variant explains the log-odds of one logit against all others, none of which "
                "can be left out; take variant='stochastic', 'dual' or 'original'"
            )

    def _check_epsilon(self) -> None:
        dual = self.variant == "dual" and self.attribution == "lrp"
        if self.batch_norm == "exact" and dual:
            raise ValueError("batch_norm: the dual variant merges batch norm into the layer before it, 'linear' only")
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon: expected a number >= 0, got {self.epsilon}")
        if self.epsilon == 0 and dual:
            raise ValueError(
                "epsilon: expected a number > 0 for the dual variant, got 0: LRP-z+ and LRP-epsilon divide by sums "
                "that may be 0, and gradients would be NaN; take a small one, or the default 0.01"
            )

    def _check_box(self) -> None:
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        if not all(value > 0 for value in std):
            raise ValueError(f"std: expected positive numbers, got {list(std)}")
        if len(mean) != len(std) and min(len(mean), len(std)) != 1:
            raise ValueError(f"std: expected as many numbers as mean has ({len(mean)}), got {len(std)}")

    def _check_places(self) -> None:
        if self.at_input:
            return
        if not self.deep_supervision:
            raise ValueError("at_input: False leaves nothing to explain; name layers in deep_supervision")
        if self.input_rule == "zbox":
            raise ValueError("at_input: False leaves out the image, where z^B belongs; leave input_rule out")

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that are explained beside the image; those of `named_in`."""
        return () if isinstance(self.deep_supervision, str) else tuple(self.deep_supervision or ())

    def named_in(self, model: nn.Module) -> Rules:
        """The same with the name of the layer whose output enters a model's last stage, where that was asked for.

        Raises:
            LookupError: there is no telling where it begins.
        """
        if not isinstance(self.deep_supervision, str):
            return self
        try:
            layer = last_stage(model).before
        except LookupError as error:
            raise LookupError(f"deep_supervision: {LAST_STAGE!r}: {error.args[0]}") from None
        return dataclasses.replace(self, deep_supervision=(layer,))

    @property
    def boxed(self) -> bool:
        """Whether z^B is wanted where the image enters."""
        by_default = self.input_rule is None and self.mean is not None and self.std is not None
        return self.at_input and (self.input_rule == "zbox" or by_default)

    def lenient(self) -> Rules:
        """The same, but z^B gives way to input x gradient, with a warning, where no layer takes the image."""
        if self.input_rule != "zbox":
            return self
        return dataclasses.replace(self, input_rule=None, mean=self.mean or (0.0,), std=self.std or (1.0,))

    def explained_classes(self, count: int) -> list[int]:
        """The classes that are not exempt, of so many.

        Raises:
            ValueError: an exempt class that there is not, or none is left.
        """
        explained = [k for k in range(count) if k not in self.exempt]
        if len(explained) + len(self.exempt) != count or not explained:
            raise ValueError(
                f"exempt: expected some but not all of the {count} classes 0 to {count - 1}, got {list(self.exempt)}"
            )
        return explained

    def scalars(self, logits: Tensor, target: Target, generator: torch.Generator | None) -> Tensor:
        """What is explained of the logits (B, K): (B, M), differentiable."""
        if self.exempt and target is None and logits.ndim == 2:
            logits = logits[:, self.explained_classes(logits.shape[1])]
        return explained(
            self.variant,
            logits,
            target,
            selective_eps=self.selective_eps,
            multi_label=self.multi_label,
            dual_target=self.dual_target,
            positive=self.attribution == "gradient",
            generator=generator,
        )

    def jobs(self, scalars: Tensor, target: Target) -> list[tuple[Tensor, str]]:
        """The scalars (B,) to propagate and the rule of each, one per heatmap."""
        columns = scalars.unbind(1)
        if self.variant != "dual" or self.attribution == "gradient":
            return [(scalar, "") for scalar in columns]
        if target is None:
            return list(zip(columns, (ZPLUS, EPSILON), strict=True))
        return [(scalar, rule) for scalar in columns for rule in (ZPLUS, EPSILON)]

    def new_pass(self, image: Tensor, private: bool) -> FlexPass:
        """The forward pass in which an image that requires grad is explained.

        Args:
            image: (B, C, H, W) or (B, C, D, H, W), what the model gets.
            private: only the relevance pass uses the gradient of the image.
        """
        if self.variant == "dual" and self.attribution == "lrp":
            return DualPass(self.epsilon, image=image, remember=self.boxed, private=private)
        return FlexPass(
            self.epsilon,
            batch_norm=self.batch_norm,
            image=image,
            remember=self.boxed,
            private=private,
            plain=self.attribution == "gradient",
        )


class PixelBox(nn.Module):
    """The bounds of valid pixels after normalisation: a module without parameters, whose buffers follow ``.to()``.

    Args:
        rules: whose ``mean`` and ``std`` say how the images were normalised from [0, 1].
    """

    low: Tensor
    high: Tensor

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        mean = torch.as_tensor(0.0 if rules.mean is None else rules.mean, dtype=torch.float32).flatten()
        std = torch.as_tensor(1.0 if rules.std is None else rules.std, dtype=torch.float32).flatten()
        self.register_buffer("low", (0 - mean) / std, persistent=False)
        self.register_buffer("high", (1 - mean) / std, persistent=False)
        self._told = False

    def bounds(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest valid image (1, C, H, W), or volume, like ``image``."""
        shape = (-1, *[1] * (image.ndim - 2))
        low, high = (bound.to(image).view(shape).expand(1, *image.shape[1:]) for bound in (self.low, self.high))
        return low, high

    def does_not_hold(self, model: str, *, strict: bool) -> None:
        """No layer of a model takes the image, so there is nothing that z^B could be used at.

        Args:
            model: its name.
            strict: raise, else warn, once.

        Raises:
            RuntimeError: ``strict``.
        """
        text = (
            f"input_rule 'zbox': no linear or convolution layer of {model} takes the image itself, nor the image "
            "padded, moved, scaled or resized"
        )
        if strict:
            raise RuntimeError(f"{text}; use input_rule='gradient'")
        if not self._told:
            self._told = True
            warnings.warn(f"{text}: its heatmaps are input x gradient (input_rule='gradient') instead", stacklevel=2)

    def check(self, image: Tensor) -> None:
        """Refuse images of other channels, and warn of pixels far out of the box, where looking is free.

        Raises:
            ValueError: as many channels as mean and std have were expected.
        """
        if len(self.low) not in (1, image.shape[1]):
            raise ValueError(f"image: expected {len(self.low)} channels, as mean and std have, got {describe(image)}")
        if not values_readable(image):
            return
        low, high = float(self.low.min()), float(self.high.max())
        smallest, largest = (float(x) for x in image.detach().aminmax())
        slack = 0.25 * (high - low)  # augmentations and resampling overshoot
        if smallest < low - slack or largest > high + slack:
            warnings.warn(
                f"input_rule 'zbox': mean and std say that pixels lie in [{low:.3g}, {high:.3g}], the image's lie in "
                f"[{smallest:.3g}, {largest:.3g}]; pass the mean and std of its normalisation",
                stacklevel=2,
            )


def _numbers(values: Channels) -> tuple[float, ...] | None:
    if values is None:
        return None
    return tuple(float(value) for value in torch.as_tensor(values).flatten().tolist())
