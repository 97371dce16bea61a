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

import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_image, check_option, describe, values_readable
from torch_bgdebias.isnet.targets import VARIANTS, DualTarget, Target, Variant
from torch_bgdebias.isnet.watch import Explanation, Record, Watch, times, wide
from torch_bgdebias.lrp.blame import propagate
from torch_bgdebias.lrp.dual import EPSILON, ZPLUS, DualPass
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.switch import depends_on
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
        input_rule: "gradient", or "zbox": the z^B rule at the linear and convolution layers that take the image, whose
            pixels lie in [0, 1] before normalisation by ``mean`` and ``std``; what reaches the image by other ways is
            input x gradient.
        mean, std: per channel, of the images' normalisation; ``None`` where images are in [0, 1].
        deep_supervision: names of layers at whose outputs relevance is returned too: maps (B, c, h, w) or (B, h, w, c),
            or tokens (B, N, c) of patches, without those that are no patch. Each has to run once in a forward pass.
            With "dual", the relevance of a layer before batch norm is that of the batch norm: the two are one layer.
        selective_eps: e of the papers' form log(p + e) - log(1 - p + e) of the selective variant, which goes flat when
            p is much smaller than e; ``None`` (default) for exact log-odds.
        batch_norm: "linear": a training batch's statistics are constants in the relevance pass; "exact": relevance is
            differentiated through them (not with the dual variant). In evaluation mode the two agree.
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
        if self.batch_norm == "exact" and self.variant == "dual" and self.attribution == "lrp":
            raise ValueError("batch_norm: the dual variant merges batch norm into the layer before it, 'linear' only")
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

        Forward passes under ``torch.no_grad``, in other threads and those that :meth:`explain` makes are not recorded.
        Several watches may be open at once, of the same module or of one inside another, as long as their rules
        (``epsilon``, ``batch_norm``, ``input_rule``, the dual variant or another) are the same.
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
            with Watch(self, exclusive=True) as watch:
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
        if remember:
            self._check_box(image)
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

    def _check_box(self, image: Tensor) -> None:
        """Warn of pixels far out of the box in which the z^B rule takes them to lie, where looking is free."""
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

    def _map(
        self, record: Record, scalar: Tensor, logits: Tensor, rule: str, create_graph: bool, retain_graph: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One heatmap and its counterparts in the hidden layers."""
        flex, layers, hidden = record.flex, _input_layers(record.flex), record.places()
        edges = [edge for places in hidden for edge, _ in places]
        places = [record.place, *(layer.output for layer in layers), *edges]
        if not scalar.requires_grad:
            raise RuntimeError("no gradient path from the model's output to the image")
        with flex.relevance(rule, logits):
            gradients = propagate(scalar, places, create_graph=create_graph, retain_graph=retain_graph)
        found = iter(gradients)
        at_image, at_layers = next(found), list(islice(found, len(layers)))
        if at_image is None and all(gradient is None for gradient in at_layers):
            raise _no_path(record, scalar)
        with torch.set_grad_enabled(create_graph):
            relevance = self._at_input(record, at_image, list(zip(layers, at_layers, strict=True)))
            maps = {
                name: record.hidden_map(name, [value for _, value in places], list(islice(found, len(places))))
                for name, places in zip(record.hidden, hidden, strict=True)
            }
        return relevance, maps

    def _at_input(
        self, record: Record, at_image: Tensor | None, layers: list[tuple[InputLayer, Tensor | None]]
    ) -> Tensor:
        """Input x gradient, and of the layers that are treated so the z^B rule."""
        image = record.value.detach() if record.private else record.value
        parts = [] if at_image is None else [times(image, at_image)]
        low, high = (bound.to(image).view(-1, 1, 1).expand(1, *image.shape[1:]) for bound in (self.low, self.high))
        for layer, gradient in layers:
            if gradient is not None:
                found = layer.relevance(gradient, low, high, self.epsilon).to(layer.x.dtype)
                (part,) = torch.autograd.grad(
                    layer.x, record.place, found, create_graph=torch.is_grad_enabled(), retain_graph=True
                )
                parts.append(wide(part))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _input_layers(flex: FlexPass) -> list[InputLayer]:
    if flex.remember and not flex.input_layers:
        raise RuntimeError("input_rule 'zbox': no linear or convolution layer of the model takes the image itself")
    return flex.input_layers


def _no_path(record: Record, scalar: Tensor) -> RuntimeError:
    text = "no gradient path from the model's output to the image"
    if depends_on(scalar, record.flex.image):
        text += (
            " in the relevance pass, in which attention weights and all other softmaxes count as constants: "
            "pass logits, not probabilities"
        )
    return RuntimeError(text)


def _channels(values: Sequence[float] | Tensor | None, default: float, name: str) -> Tensor:
    channels = torch.as_tensor(default if values is None else values, dtype=torch.float32).flatten()
    if name == "std" and not bool((channels > 0).all()):
        raise ValueError(f"std: expected positive numbers, got {channels.tolist()}")
    return channels
