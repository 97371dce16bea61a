"""Tensors of every kind that a caller could have, and what a public function may answer to them.

An example draws dtype, magnitude, memory layout, batch, size, masks and the default dtype; all its tensors share them.
The answer is finite values with finite gradients, or an error that names an argument.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

T = TypeVar("T")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: of the values; "flat" is one value everywhere
MAGNITUDES = ("one", "tiny", "huge", "zero", "flat")
LAYOUTS = ("contiguous", "strided", "reversed", "expanded")
MASKS = ("box", "none", "all", "bool", "soft", "one pixel")
SIZES = ((7, 6), (1, 1), (1, 5), (4, 3))
NAMED = (ValueError, TypeError, LookupError)


class Drawn:
    """One example: the choices that all its tensors share, and tensors on request.

    Args:
        choose: one of several values, the simplest first.
        least: the smallest (H, W), for functions whose model needs so many pixels.
    """

    def __init__(self, choose: Callable[[Sequence[Any]], Any], *, least: int = 1) -> None:
        self.choose = choose
        self.dtype: torch.dtype = choose(DTYPES)
        self.magnitude: str = choose(MAGNITUDES)
        self.layout: str = choose(LAYOUTS)
        self.state: str = choose(("plain", "requires grad", "inference"))
        self.default_dtype: torch.dtype = choose((torch.float32, torch.float64, torch.bfloat16))
        self.batch: int = choose((3, 1, 0, 2))
        height, width = choose(SIZES)
        self.size = (max(height, least), max(width, least))
        self.masks: str = choose(MASKS)
        self.generator = torch.Generator().manual_seed(choose(range(8)))
        self.leaves: list[Tensor] = []

    def __str__(self) -> str:
        names = ("dtype", "magnitude", "layout", "state", "default_dtype", "batch", "size", "masks")
        return ", ".join(f"{name} {getattr(self, name)}" for name in names)

    @property
    def scale(self) -> float:
        """What numbers about 1 are multiplied by; half precision has neither 1e19 nor 1e-30."""
        half = self.dtype == torch.float16
        return {"tiny": 1e-7 if half else 1e-30, "huge": 6e4 if half else 1e19, "zero": 0.0}.get(self.magnitude, 1.0)

    def floats(self, *shape: int, signed: bool = True, scaled: bool = True) -> Tensor:
        """Values up to the magnitude, in the example's dtype, layout and state."""
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        values = 2 * values - 1 if signed else values
        if self.magnitude == "flat" and values.numel():
            values = values.flatten()[0].expand(shape).clone()
        return self.as_given((values * self.scale if scaled else values).to(self.dtype))

    def as_given(self, values: Tensor) -> Tensor:
        """The same values in the example's layout and state."""
        if self.layout == "strided" and values.ndim:
            wide = values.new_zeros((*values.shape[:-1], 2 * values.shape[-1]))
            wide[..., ::2] = values
            values = wide[..., ::2]
        elif self.layout == "reversed" and values.ndim > 1:
            values = values.transpose(0, -1).contiguous().transpose(0, -1)
        elif self.layout == "expanded" and len(values):
            values = values[:1].expand_as(values)
        if self.state == "inference":
            with torch.inference_mode():
                return values.as_strided(values.size(), values.stride()) if _overlaps(values) else values.clone()
        if self.state == "requires grad" and values.is_floating_point():
            self.leaves.append(values.detach().requires_grad_())
            return self.leaves[-1]
        return values

    def image(self, *, channels: int = 3) -> Tensor:
        return self.floats(self.batch, channels, *self.size)

    def mask(self, batch: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """(B, 1, H, W) or (B, H, W) of the example's kind of masks."""
        batch, (height, width) = self.batch if batch is None else batch, size or self.size
        if self.masks == "soft":
            mask = torch.rand(batch, 1, height, width, generator=self.generator, dtype=torch.float64)
        elif self.masks == "bool":
            return torch.rand(batch, height, width, generator=self.generator) < 0.5
        else:
            mask = torch.full((batch, 1, height, width), float(self.masks == "all"), dtype=torch.float64)
            if self.masks == "box":
                mask[..., height // 3 : height // 3 + 2, width // 4 : width // 4 + 3] = 1
            elif self.masks == "one pixel":
                mask[..., 0, 0] = 1
        return mask.to(self.dtype)

    def void(self) -> Tensor | None:
        kind = self.choose(("none", "some", "all"))
        drawn = torch.rand(self.batch, 1, *self.size, generator=self.generator) < (0.3 if kind == "some" else 2)
        return None if kind == "none" else drawn

    def labels(self, classes: int = 3, *, rows: int | None = None, least: int = 0) -> Tensor:
        rows = self.batch if rows is None else rows
        drawn = torch.randint(least, classes, (rows,), generator=self.generator)
        return drawn.to(self.choose((torch.int64, torch.int32, torch.uint8)) if least == 0 else torch.int64)

    def flags(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < self.choose((0.5, 1.1, -0.1))

    def numbers(self, count: int, *, signed: bool = True) -> Any:
        """An array, a tensor or a list of so many values."""
        values = self.floats(count, signed=signed)
        kind = self.choose(("array", "tensor", "list"))
        if kind == "tensor":
            return values
        doubles = values.detach().double().clone().numpy()
        return doubles.tolist() if kind == "list" else doubles

    def network(self, net: nn.Module) -> nn.Module:
        """With weights of the example's dtype, drawn anew."""
        net = net.to(self.dtype)
        with torch.no_grad():
            for parameter in net.parameters():
                drawn = torch.rand(parameter.shape, generator=self.generator, dtype=torch.float64) - 0.4
                parameter.copy_(drawn * self.choose((1.0, 0.0)) if parameter.ndim == 1 else drawn)
        return net


def _overlaps(values: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(values.shape, values.stride(), strict=True))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def drawn_by(data: st.DataObject, **options: Any) -> Drawn:
    return Drawn(lambda values: data.draw(st.sampled_from(values)), **options)


def parts(value: Any, place: str = "result") -> Iterator[tuple[str, Any]]:
    """The tensors, arrays and floats in a result, with where they are."""
    if isinstance(value, Tensor | np.ndarray | float):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from parts(item, f"{place}[{key!r}]")
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        for name, item in zip(names, value, strict=True):
            yield from parts(item, f"{place}.{name}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name), f"{place}.{field.name}")


def argument_names(function: Any) -> set[str]:
    """Of a function, or of a class and its public methods."""
    members = [function]
    if inspect.isclass(function):
        members += [value for name, value in inspect.getmembers(function, callable) if name[0] != "_"]
        members.append(function.__init__)
    names: set[str] = set()
    for member in members:
        try:
            names |= set(inspect.signature(member).parameters)
        except (TypeError, ValueError):
            continue
    return names - {"self", "args", "kwargs", "options"}


def names_an_argument(error: Exception, names: set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in names)


def not_finite(result: Any, leaves: Sequence[Tensor], undefined: Sequence[str]) -> list[str]:
    """Where a result or its gradients are NaN or infinite; NaN is allowed at places that ``undefined`` matches."""
    faults = []
    for place, value in parts(result):
        if isinstance(value, float):
            value = torch.tensor(value, dtype=torch.float64)
        elif isinstance(value, np.ndarray):
            if value.dtype.kind != "f":
                continue
            value = torch.from_numpy(np.ascontiguousarray(value))
        if not value.is_floating_point():
            continue
        values = value.detach()
        fine = values.isfinite()
        if any(re.search(pattern, place) for pattern in undefined):
            fine = fine | values.isnan()
        if not bool(fine.all()):
            faults.append(f"{place}: {values.flatten()[:6].tolist()}")
        faults += [] if faults else _gradient_faults(place, value, leaves)
    return faults


def _gradient_faults(place: str, value: Tensor, leaves: Sequence[Tensor]) -> list[str]:
    if not (value.requires_grad and leaves and value.numel()):
        return []
    ones = torch.where(value.detach().isfinite(), 1.0, 0.0).to(value.dtype)
    given = torch.autograd.grad(value, list(leaves), ones, allow_unused=True, retain_graph=True)
    gradients = [gradient for gradient in given if gradient is not None]
    # a right gradient may be beyond the numbers of half precision, as 1 / temperature / length is
    if any(gradient.dtype == torch.float16 and bool(gradient.isinf().any()) for gradient in gradients):
        return []
    return [f"gradient of {place}: {g.flatten()[:6].tolist()}" for g in gradients if not bool(g.isfinite().all())]
