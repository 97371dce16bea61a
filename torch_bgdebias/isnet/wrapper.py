"""``ISNet``: a borrowed classifier whose decisions can be explained, and trained through the explanation.

Nothing of the model is replaced. An explained forward pass runs inside a torch function mode
(:class:`~torch_bgdebias.lrp.engine.FlexPass`) that gives activations, normalisation and attention their rules, whatever
way the model writes them; a plain one, ``isnet(image)``, is the model's own.

Two ways to use it while training::

    explanation = isnet.explain(image)  # one forward pass of its own
    loss = (1 - P) * F.cross_entropy(explanation.logits, label) + P * isnet_loss(explanation.relevance, mask)

    with isnet.watching() as watch:  # around code that calls the model itself, such as a training_step
        loss = step(batch)
    explanation = watch.explain()  # of the model's last call; no second forward pass
    loss = (1 - P) * loss + P * isnet_loss(explanation.relevance, mask)

Either way one ordinary ``loss.backward()`` follows, and the gradients it leaves are the true ones of both terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_image, check_option, describe
from torch_bgdebias.isnet.targets import VARIANTS, DualTarget, Target, Variant
from torch_bgdebias.isnet.watch import Explanation, Watch
from torch_bgdebias.lrp.blame import propagate
from torch_bgdebias.lrp.dual import EPSILON, ZPLUS, DualPass
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.models import LogitsKey, get_layer, logits_of, original_module

__all__ = ["Explanation", "ISNet"]

InputRule: TypeAlias = Literal["gradient", "zbox"]
BatchNorm: TypeAlias = Literal["linear", "exact"]
Attribution: TypeAlias = Literal["lrp", "gradient"]


class ISNet(nn.Module):
    """Wrap a classifier so that it can be explained by LRP, and trained through its heatmaps (Faster ISNet).

    Args:
        model: any image classifier; it stays the caller's, untouched.
        variant: what is explained, M maps an image. "selective": the log-odds of the lowest logit (M = 1).
            "stochastic": one logit, the highest with probability 1/2, else a random other one (M = 1). "dual": LRP-z+
            and LRP-epsilon of all logits at once (M = 2). "original": every logit (M = K).
        epsilon: stabiliser of LRP, >= 0. With 0 the relevance of a ReLU network is input x gradient.
        input_rule: "gradient", or "zbox": the z^B rule at the first linear or convolution layer, whose pixels lie in
            [0, 1] before normalisation by ``mean`` and ``std``.
        mean, std: per channel, of the images' normalisation; ``None`` where images are in [0, 1].
        deep_supervision: names of layers at whose outputs relevance is returned too.
        selective_eps: e of the papers' form log(p + e) - log(1 - p + e) of the selective variant, which goes flat when
            p is much smaller than e; ``None`` (default) for exact log-odds.
        batch_norm: "linear": a training batch's statistics are constants in the relevance pass; "exact": relevance is
            differentiated through them. In evaluation mode the two agree.
        attribution: "lrp", or "gradient": plain input x gradient, without any LRP.
        dual_target: what the dual variant's LRP-epsilon explains: "sum", the papers' sum of all logits, or "contrast",
            their sum with random signs. Train with "contrast": differences between logits, by which a softmax decides,
            cancel in the plain sum (docs/isnet.md has what either reaches).
        logits: where the logits are in what the model returns (key, index or function); ``None`` takes a tensor.
        multi_label: the logits are independent yes/no decisions: probabilities are sigmoids.

    Shape:
        image (B, C, H, W) -> logits (B, K).

    Raises:
        ValueError: an unknown option, or epsilon < 0.
        TypeError: a model that is no module, or ``deep_supervision`` a string.
        KeyError: a layer of ``deep_supervision`` that the model does not have.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> explanation = ISNet(model).explain(torch.rand(2, 3, 8, 8))
        >>> explanation.relevance.shape, explanation.logits.shape
        (torch.Size([2, 1, 3, 8, 8]), torch.Size([2, 5]))
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        model: nn.Module,
        variant: Variant = "selective",
        epsilon: float = 1e-2,
        input_rule: InputRule = "gradient",
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
        deep_supervision: Sequence[str] | None = None,
        selective_eps: float | None = None,
        batch_norm: BatchNorm = "linear",
        attribution: Attribution = "lrp",
        *,
        dual_target: DualTarget = "sum",
        logits: LogitsKey = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        if not epsilon >= 0:
            raise ValueError(f"epsilon: expected a number >= 0, got {epsilon}")
        if selective_eps is not None and selective_eps <= 0:
            raise ValueError(f"selective_eps: expected None or a number > 0, got {selective_eps}")
        self.model = model
        self.variant: Variant = check_option(variant, VARIANTS, name="variant")
        self.epsilon = float(epsilon)
        self.input_rule = check_option(input_rule, ("gradient", "zbox"), name="input_rule")
        self.batch_norm = check_option(batch_norm, ("linear", "exact"), name="batch_norm")
        self.attribution = check_option(attribution, ("lrp", "gradient"), name="attribution")
        self.dual_target: DualTarget = check_option(dual_target, ("sum", "contrast"), name="dual_target")
        if isinstance(deep_supervision, str):
            raise TypeError(f"deep_supervision: expected a list of layer names, got the string {deep_supervision!r}")
        self.deep_supervision = tuple(deep_supervision or ())
        for name in self.deep_supervision:
            get_layer(original_module(model), name)
        self.selective_eps = selective_eps
        self.logits = logits
        self.multi_label = multi_label
        shift, scale = _channels(mean, 0.0, "mean"), _channels(std, 1.0, "std")
        if len(shift) != len(scale) and min(len(shift), len(scale)) != 1:
            raise ValueError(f"std: expected as many numbers as mean has ({len(shift)}), got {len(scale)}")
        self.register_buffer("low", (0 - shift) / scale, persistent=False)
        self.register_buffer("high", (1 - shift) / scale, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The model's logits (B, K), at the model's own cost."""
        return logits_of(self.model(image), self.logits)

    def watching(self) -> Watch:
        """A context in which the model's own forward passes are recorded; explain them with ``watch.explain()``.

        Forward passes under ``torch.no_grad`` are not recorded. Of two open watches of one module, the innermost
        records.
        """
        return Watch(self)

    def explain(
        self,
        image: Tensor,
        target: Target = None,
        create_graph: bool | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Explanation:
        """Logits and heatmaps of ``image``, in the model's current mode.

        Works inside ``torch.no_grad`` and ``torch.inference_mode``, which it leaves for the time being.

        Args:
            image: (B, C, H, W), as the model takes it.
            target: classes (B,) or (B, M), or a function of the logits that returns (B,) or (B, M) scalars; ``None``
                is the variant's own choice.
            create_graph: whether the relevance can be trained through; ``None`` says yes where gradients are enabled.
            generator: for the stochastic choice, on the model's device.

        Raises:
            ValueError: relevance that is not finite (seen on the CPU; elsewhere it is in the result and reaches the
                loss), naming the layer where it begins, or an image or target of the wrong shape.
            RuntimeError: no gradient path from the logits to the image, or a layer that cannot be differentiated
                twice while the relevance is to be trained through; the message names the layer.
        """
        check_image(image)
        create_graph = torch.is_grad_enabled() if create_graph is None else create_graph
        with torch.inference_mode(False), torch.enable_grad():
            if image.is_inference():
                image = image.clone()
            with self.watching() as watch:
                self.model(image)
            return watch.explain(target, create_graph, generator=generator)

    def _jobs(self, scalars: Tensor, target: Target) -> list[tuple[Tensor, str]]:
        """What is propagated (B,) and by which rule, a map each."""
        columns = scalars.unbind(1)
        if self.variant != "dual" or self.attribution == "gradient":
            return [(scalar, "") for scalar in columns]
        if target is None:
            return list(zip(columns, (ZPLUS, EPSILON), strict=True))
        return [(scalar, rule) for scalar in columns for rule in (ZPLUS, EPSILON)]

    def _new_pass(self, image: Tensor, private: bool) -> FlexPass:
        remember = self.input_rule == "zbox"
        if remember and len(self.low) not in (1, image.shape[1]):
            raise ValueError(f"image: expected {len(self.low)} channels, as mean and std have, got {describe(image)}")
        if self.variant == "dual" and self.attribution == "lrp":
            return DualPass(self.epsilon, image=image, remember=remember, private=private)
        return FlexPass(
            self.epsilon,
            batch_norm=self.batch_norm,
            image=image,
            remember=remember,
            private=private,
            plain=self.attribution == "gradient",
        )

    def _map(
        self,
        image: Tensor,
        flex: FlexPass,
        hidden: dict[str, Tensor],
        scalar: Tensor,
        rule: str,
        create_graph: bool,
        last: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One heatmap and its counterparts in the hidden layers."""
        places = [_input_layer(flex).output if flex.remember else image, *hidden.values()]
        if not scalar.requires_grad:
            raise RuntimeError("no gradient path from the model's output to the image")
        with flex.relevance(rule):
            gradients = propagate(scalar, places, create_graph=create_graph, retain_graph=create_graph or not last)
        if gradients[0] is None:
            raise RuntimeError(
                "no gradient path from the model's output to the image (in the relevance pass attention weights, "
                "which are softmaxes, count as constants: pass logits, not probabilities)"
            )
        with torch.set_grad_enabled(create_graph):
            relevance = self._at_input(image, flex, gradients[0])
            found = {
                name: _times(place, torch.zeros_like(place) if gradient is None else gradient)
                for (name, place), gradient in zip(hidden.items(), gradients[1:], strict=True)
            }
        return relevance, found

    def _at_input(self, image: Tensor, flex: FlexPass, gradient: Tensor) -> Tensor:
        if not flex.remember:
            return _times(image.detach() if flex.private else image, gradient)
        layer = _input_layer(flex)
        low, high = (
            bound.to(image).view(-1, 1, 1).expand(1, *image.shape[1:]).reshape(1, *layer.x.shape[1:])
            for bound in (self.low, self.high)
        )
        excess = flex.excess if isinstance(flex, DualPass) else None
        return _wide(layer.relevance(gradient, low, high, self.epsilon, excess=excess).view(image.shape))


def _input_layer(flex: FlexPass) -> InputLayer:
    if flex.input_layer is None:
        raise RuntimeError("input_rule 'zbox': no linear or convolution layer of the model takes the image itself")
    return flex.input_layer


def _times(place: Tensor, gradient: Tensor) -> Tensor:
    return _wide(place) * _wide(gradient)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _channels(values: Sequence[float] | Tensor | None, default: float, name: str) -> Tensor:
    channels = torch.as_tensor(default if values is None else values, dtype=torch.float32).flatten()
    if name == "std" and not bool((channels > 0).all()):
        raise ValueError(f"std: expected positive numbers, got {channels.tolist()}")
    return channels
