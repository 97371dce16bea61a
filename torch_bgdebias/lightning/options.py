"""Options as text that is the same in every process and run, for keys that tell callbacks' states apart."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sized

from torch import Tensor, nn

from torch_bgdebias.records import fields_of

__all__ = ["option_text"]


def option_text(value: object) -> object:
    """Numbers, text and containers of them as they are; of functions their name, of objects their plain attributes."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return {str(key): option_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [option_text(item) for item in value]
    kind = type(value).__qualname__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {kind: option_text(fields_of(value))}
    if isinstance(value, nn.Module):
        public = {name: item for name, item in vars(value).items() if not name.startswith("_") and name != "training"}
        return {kind: {name: option_text(item) for name, item in sorted(public.items())}}
    if callable(value):
        return getattr(value, "__qualname__", kind)
    return f"{kind} of {len(value)}" if isinstance(value, Sized) else kind
