"""``ISNet``: a borrowed classifier whose decisions can be explained, and trained through the explanation.

Nothing of the model is replaced. An explained forward pass runs inside a torch function mode
(`torch_bgdebias.lrp.engine.FlexPass`) that gives activations, normalisation and attention their rules, whatever
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

import dataclasses
from collections.abc import Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_image
from torch_bgdebias.isnet.record import Explanation
from torch_bgdebias.isnet.rules import Attribution, BatchNorm, HiddenLayers, InputRule, PixelBox, Rules
from torch_bgdebias.isnet.targets import DualTarget, Target, Variant
from torch_bgdebias.isnet.watch import Watch
from torch_bgdebias.models import LogitsKey, get_layer, logits_of, original_module

__all__ = ["Explanation", "ISNet"]


class ISNet(nn.Module):
    """Wrap a classifier so that it can be explained by LRP, and trained through its heatmaps (Faster ISNet).

    Args:
        model: any image classifier; it stays the caller's, untouched.
        variant: what is explained, M maps an image; or `torch_bgdebias.isnet.Rules` with everything below.
            "selective": the log-odds of the lowest logit (M = 1). "stochastic": one logit, the highest with probability
            1/2, else a random other one (M = 1). "dual": LRP-z+ and LRP-epsilon of all logits at once (M = 2).
            "original": every logit (M = K).
        epsilon: stabiliser of LRP, >= 0 (0: input x gradient in ReLU networks); above 0 with "dual".
        input_rule: "gradient", or "zbox": the z^B rule at the linear and convolution layers that take the image, whose
            pixels lie in [0, 1] before normalisation by ``mean`` and ``std``. ``None``: "zbox" where ``mean`` and
            ``std`` are given, and a layer takes the image, as it is or moved, scaled or resized (docs/lrp.md).
        mean, std: per channel, of the images' normalisation; ``None`` where images are in [0, 1].
        deep_supervision: names of layers at whose outputs relevance is returned too: maps (B, c, h, w) or (B, h, w, c),
            or tokens (B, N, c) of patches, without those that are no patch. Each has to run once in a forward pass;
            "last-stage": the one whose output enters the last stage (`torch_bgdebias.finetuning.last_stage`). With
            "dual", the relevance of a layer before batch norm is that of the batch norm: the two are one layer.
        selective_eps: e of the papers' form log(p + e) - log(1 - p + e) of the selective variant, which goes flat when
            p is much smaller than e; ``None`` (default) for exact log-odds.
        batch_norm: a training batch's statistics are constants for relevance ("linear") or not ("exact"; not "dual").
        attribution: "lrp", or "gradient": plain input x gradient, without any LRP.
        dual_target: what the dual variant's LRP-epsilon explains: "contrast", the logits' sum with random signs, or
            "sum", the papers' plain sum, in which differences between logits cancel (docs/isnet.md).
        logits: where the logits are in what the model returns (key, index or function); ``None`` takes a tensor.
        multi_label: the logits are independent yes/no decisions: probabilities are sigmoids.
        at_input: explain the image too. ``False``: relevance goes down to the layers of ``deep_supervision`` alone.
        exempt: classes that may use the background: their logits are not explained. Not with "selective".

    Shape:
        image (B, C, H, W), or volumes (B, C, D, H, W), -> logits (B, K).

    Raises:
        ValueError: an unknown option, or epsilon < 0.
        TypeError: a model that is no module, or ``deep_supervision`` a string.
        LookupError: a layer of ``deep_supervision`` that the model does not have, or no last stage was recognised.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> explanation = ISNet(model).explain(torch.rand(2, 3, 8, 8))
        >>> explanation.relevance.shape, explanation.logits.shape
        (torch.Size([2, 1, 3, 8, 8]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        model: nn.Module,
        variant: Variant | Rules = "selective",
        epsilon: float = 1e-2,
        input_rule: InputRule | None = None,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
        deep_supervision: HiddenLayers = (),
        selective_eps: float | None = None,
        batch_norm: BatchNorm = "linear",
        attribution: Attribution = "lrp",
        *,
        dual_target: DualTarget = "contrast",
        logits: LogitsKey = None,
        multi_label: bool = False,
        at_input: bool = True,
        exempt: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        options = Rules(
            variant="selective" if isinstance(variant, Rules) else variant,
            epsilon=epsilon,
            input_rule=input_rule,
            mean=mean,
            std=std,
            deep_supervision=deep_supervision,
            selective_eps=selective_eps,
            batch_norm=batch_norm,
            attribution=attribution,
            dual_target=dual_target,
            logits=logits,
            multi_label=multi_label,
            at_input=at_input,
            exempt=exempt,
        )
        if isinstance(variant, Rules) and options != Rules():
            raise TypeError("variant: a Rules object holds all options; pass them to it instead of beside it")
        self.model = model
        #: the settings, which stay as they are, with the names of layers that were found
        self.rules = (variant if isinstance(variant, Rules) else options).named_in(original_module(model))
        #: where valid pixels lie after normalisation
        self.box = PixelBox(self.rules)
        for name in self.rules.layers:
            get_layer(original_module(model), name)

    variant = property(attrgetter("rules.variant"), doc="What is explained.")
    epsilon = property(attrgetter("rules.epsilon"), doc="Stabiliser of LRP.")
    input_rule = property(attrgetter("rules.input_rule"), doc="What is asked of the layers that take the image.")
    deep_supervision = property(attrgetter("rules.layers"), doc="Names of the hidden layers that are explained.")
    batch_norm = property(attrgetter("rules.batch_norm"), doc="What a training batch's statistics count as.")
    attribution = property(attrgetter("rules.attribution"), doc="LRP, or plain input x gradient.")
    dual_target = property(attrgetter("rules.dual_target"), doc="What the dual variant's LRP-epsilon explains.")

    def forward(self, image: Tensor) -> Tensor:
        """The model's logits (B, K), at the model's own cost."""
        return logits_of(self.model(image), self.rules.logits)

    def watching(self, first: str | None = None, last: str | None = None) -> Watch:
        """A context in which the model's own forward passes are recorded; explain them with ``watch.explain()``.

        Forward passes under ``torch.no_grad``, in other threads and those that `explain` makes are not recorded.
        A call of ``model.forward`` is one as well. Several watches may be open at once, of the same module or of one
        inside another, as long as their rules (``epsilon``, ``batch_norm``, ``input_rule``, the dual variant or
        another) are the same.

        Args:
            first: name of the part of the model that takes the image, where code calls its parts one after the other;
                the model itself by default.
            last: name of the part that returns the logits; ``first`` by default.

        Raises:
            LookupError: the model has no such part.
        """
        if first is None and last is None:
            return Watch(self.model, self.rules, self.box)
        inner = original_module(self.model)
        start = inner if first is None else get_layer(inner, first)
        end = start if last is None else get_layer(inner, last)
        return Watch(self.model, self.rules, self.box, ends=(start, end))

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
            image: (B, C, H, W) or (B, C, D, H, W), as the model takes it.
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
        check_image(image, volumes=True)
        create_graph = torch.is_grad_enabled() if create_graph is None else create_graph
        with torch.inference_mode(False), torch.enable_grad():
            if image.is_inference():
                image = image.clone()
            with Watch(self.model, self.rules, self.box, exclusive=True) as watch:
                logits = logits_of(self.model(image), self.rules.logits)
            explanation = watch.explain(target, create_graph, generator=generator)
            if logits.dtype == explanation.logits.dtype:
                return explanation
            # a wrapper's precision: Fabric gives back float32
            return dataclasses.replace(explanation, logits=logits if create_graph else logits.detach())
