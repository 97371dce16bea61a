"""The tables of what `test_any_tensors` calls: one example's tensors go in, whatever comes back is looked at."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from any_tensors import Drawn

import torch_bgdebias


@dataclasses.dataclass(frozen=True)
class Promise:
    """How one public callable is called.

    Attributes:
        call: with an example's tensors.
        undefined: patterns of the places in the result that are NaN by documentation.
        words: what errors may name beside the callable's own arguments.
        least: the smallest height and width.
        heavy: a network is run many times; fewer examples.
    """

    call: Callable[[Drawn], Any]
    undefined: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    least: int = 1
    heavy: bool = False


PROMISES: dict[str, Promise] = {}
#: rooms whose faces are public: those that the package shows, and two more
ROOMS = ("attribution", "audit", "backgrounds", "callbacks", "clad", "concepts", "data", "finetuning", "heads", "isnet")
ROOMS += ("lrp", "masks", "metrics", "ops", "probe", "swap", "lightning", "batch")
TENSORS = ("Tensor", "ArrayLike", "NDArray", "nn.Module", "Floats", "loader:", "ConceptSamples", "ISNet")

#: public, with tensors in the signature, and not called with drawn ones
LEFT_OUT = {
    **dict.fromkeys(
        ("audit.AuditReport", "audit.Cluster", "audit.Discovery", "attribution.KernelShap", "batch.MaskedBatch",
         "concepts.ConceptNeighbours", "concepts.ConceptTransfer", "concepts.ConceptTree", "concepts.ConceptVectors",
         "data.MaskedTensors", "data.MaskedVoidItem", "data.Scenes", "data.Variant", "heads.LinearHead",
         "isnet.Explanation",
         "masks.MadeMasks", "metrics.AdversarialBackgrounds", "metrics.PixelRatioValues", "probe.Example"),
        "a result: what functions return",
    ),
    **dict.fromkeys(
        ("callbacks.CLADCallback", "clad.CLADCallback", "callbacks.ConceptProbeCallback", "callbacks.ISNetCallback",
         "lightning.add_to_loss", "lightning.device_number"),
        "takes batches of a trainer: tests/callbacks",
    ),
    **dict.fromkeys(
        ("backgrounds.TextToImage", "backgrounds.StreamedBackgroundBank", "backgrounds.generate_backgrounds",
         "masks.read_mask", "data.mnist_with_masks"),
        "reads or writes files: test_hostile_files, test_killed",
    ),
    **dict.fromkeys(("data.digits_with_masks", "data.paint_scenes"), "takes sizes, names and seeds alone"),
    **dict.fromkeys(("masks.Hints", "masks.MaskMaker"), "what makers of masks are asked by: tests/masks/making"),
    **dict.fromkeys(
        ("finetuning.LowerStages", "finetuning.freeze_lower_stages", "finetuning.last_stage"),
        "layers by name, not values",
    ),
    "probe.EvaluationSettings": "settings; evaluate_background_bias is called",
}  # fmt: skip


def promise(*names: str, **options: Any) -> Callable[[Callable[[Drawn], Any]], Callable[[Drawn], Any]]:
    """Enter a function of an example as the call of public names."""

    def enter(call: Callable[[Drawn], Any]) -> Callable[[Drawn], Any]:
        for name in names:
            known = PROMISES.get(name)  # the same call once more where doctests import this file under another name
            assert known is None or known.call.__qualname__ == call.__qualname__, name
            PROMISES[name] = Promise(call, **options)
        return call

    return enter


def public(name: str) -> Any:
    room, _, part = name.partition(".")
    return getattr(importlib.import_module(f"{torch_bgdebias.__name__}.{room}"), part)


def with_tensors() -> dict[str, Any]:
    """The public callables whose signatures speak of tensors, arrays or networks, by room and name."""
    shown: dict[str, Any] = {}
    for room in ROOMS:
        module = importlib.import_module(f"{torch_bgdebias.__name__}.{room}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and any(word in text for text in _signatures(value) for word in TENSORS):
                shown[f"{room}.{name}"] = value
    return shown


def _signatures(value: Any) -> list[str]:
    members = [value]
    if inspect.isclass(value):
        members = [value.__init__, *(getattr(value, name, None) for name in ("__new__", "forward", "update", "fit"))]
        members += [member for member in (vars(value).get("__call__"), vars(value).get("enqueue")) if member]
    texts = []
    for member in filter(callable, members):
        try:
            texts.append(str(inspect.signature(member)))
        except (TypeError, ValueError):
            continue
    return texts
