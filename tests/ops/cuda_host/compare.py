"""Compare a kernel that build.py has compiled with the plain one, bit by bit; a process of its own, for it may crash.

``python compare.py LIBRARY CASES`` prints what differs, ``python compare.py LIBRARY CASES MISTAKES`` the numbers of the
mistakes that nothing was seen of (0 is none at all), as JSON. Every tensor ends where a page begins that cannot be
touched, so that reading or writing behind it ends the process.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.ops.conftest import make_inputs  # noqa: E402
from torch_bgdebias.ops.plain import composite_plain  # noqa: E402

DTYPES = {torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3, torch.float64: 4}
IMAGE_DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
POINTERS = ("foreground", "mask", "bank", "out", "sites", "index", "offset", "mean", "std")
SIZES = ("batch", "channels", "height", "width", "cells", "images", "bank_height", "bank_width")


class Arguments(ctypes.Structure):
    """CompositeArguments of csrc/voronoi_composite.h."""

    _fields_ = (
        ("dtype", ctypes.c_int32),
        ("bank_dtype", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in SIZES),
        ("foreground_stride", ctypes.c_int64 * 3),
        ("mask_stride", ctypes.c_int64 * 2),
        ("bank_stride", ctypes.c_int64 * 4),
    )


class Settings(ctypes.Structure):
    """Settings of include/cuda_runtime.h."""

    _fields_ = tuple((n, ctypes.c_int32) for n in ("processors", "blocks_fitting", "most_rows_of_blocks", "order"))


class Fences:
    """Memory that ends at a page which cannot be touched, or one value before it: then it begins elsewhere."""

    def __init__(self) -> None:
        self.draw: random.Random | None = None
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        for function in (self.libc.munmap, self.libc.mprotect):
            function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * (function.__name__ == "mprotect")]
        self.taken: list[tuple[int, int]] = []

    def empty(self, bytes_: int) -> Tensor:
        """uint8 (bytes_,) at the end of its pages."""
        pages = math.ceil(max(bytes_, 1) / mmap.PAGESIZE) * mmap.PAGESIZE
        writable, private = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        begin = self.libc.mmap(None, pages + mmap.PAGESIZE, writable, private, -1, 0)
        assert begin not in (None, ctypes.c_void_p(-1).value), "no memory"
        assert self.libc.mprotect(begin + pages, mmap.PAGESIZE, 0) == 0
        self.taken.append((begin, pages + mmap.PAGESIZE))
        buffer = (ctypes.c_ubyte * bytes_).from_address(begin + pages - bytes_)
        return torch.frombuffer(buffer, dtype=torch.uint8) if bytes_ else torch.empty(0, dtype=torch.uint8)

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor with its strides and what lies between its values, and nothing behind them."""
        if tensor.numel() == 0:
            return tensor
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        gap = self.draw.choice([0, 0, 0, 1]) if self.draw else 0
        flat = self.empty((span + gap) * tensor.element_size()).view(tensor.dtype)[:span]
        flat.copy_(tensor.as_strided((span,), (1,)))
        return flat.as_strided(tensor.shape, tensor.stride())

    def release(self) -> None:
        for begin, length in self.taken:
            self.libc.munmap(begin, length)
        self.taken = []


def on_host(library: ctypes.CDLL, inputs: dict[str, Any], settings: Settings, fences: Fences) -> Tensor:
    """What binding.h does with the tensors, and the kernel; the result is a copy."""
    tensors = dict(inputs)
    for name in ("foreground", "mask"):
        if tensors[name].stride(3) != 1 and tensors[name].shape[3] != 1:
            tensors[name] = tensors[name].contiguous()
    for name in ("sites", "index", "offset"):
        tensors[name] = tensors[name].contiguous()
    tensors = {name: value if value is None else fences.copy(value) for name, value in tensors.items()}
    foreground, mask, bank = tensors["foreground"], tensors["mask"], tensors["bank"]
    out = fences.empty(foreground.numel() * foreground.element_size()).view(foreground.dtype).view(foreground.shape)
    out.fill_(float("nan"))
    tensors["out"] = out
    values: list[Any] = [DTYPES[foreground.dtype], DTYPES[bank.dtype]]
    values += [None if tensors[name] is None else tensors[name].data_ptr() for name in POINTERS]
    values += [*foreground.shape, tensors["sites"].shape[1], bank.shape[0], bank.shape[2], bank.shape[3]]
    strides = (foreground.stride()[:3], (mask.stride(0), mask.stride(2)), bank.stride())
    values += [(ctypes.c_int64 * len(each))(*each) for each in strides]
    code = library.composite_on_host(ctypes.byref(Arguments(*values)), ctypes.byref(settings))
    if code != 0:
        raise RuntimeError(f"the launch failed with {code}")
    return out.clone()


def equal_bits(a: Tensor, b: Tensor) -> bool:
    """Signs of zero count; of NaN only the place does, its bits are free."""
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    same = a.view(integers) == b.view(integers)
    return bool((same | (a.isnan() & b.isnan())).all())


def draw_case(draw: random.Random, dtypes: list[torch.dtype]) -> dict[str, Any]:
    """Inputs of every layout, kind of site and extreme offset."""
    inputs = make_inputs(
        batch=draw.choice([1, 2, 3]),
        channels=draw.choice([1, 2, 3, 3, 26]),
        size=(draw.choice([1, 2, 4, 8, 8, 17]), draw.choice([1, 3, 8, 12, 16, 24, 40, 65])),
        cells=draw.choice([1, 2, 3, 5, 8, 9, 64, 3000, 3100]),
        bank=(draw.choice([1, 2, 4]), draw.choice([1, 3, 9, 20]), draw.choice([1, 5, 11, 70])),
        dtype=draw.choice(dtypes),
        bank_dtype=draw.choice([torch.uint8, torch.uint8, *IMAGE_DTYPES]),
        normalise=draw.random() < 0.5,
        grid=draw.choice([0.0, 0.0, 0.5, 1.0]),
        seed=draw.randrange(2**31),
    )
    move_sites(inputs, draw)
    if draw.random() < 0.2:
        inputs["offset"][:] = draw.choice([2**63 - 1, -(2**63), 2**40])
    if draw.random() < 0.2:
        inputs["mask"] = (inputs["mask"] * 3 - 1).to(inputs["mask"].dtype)
    if draw.random() < 0.1:
        inputs["mask"].view(-1)[0] = float("nan")
        inputs["foreground"].view(-1)[-1] = float("inf")
    for name in ("foreground", "mask", "bank"):
        inputs[name] = laid_out(inputs[name], draw)
    return inputs


def rare_case(number: int) -> dict[str, Any]:
    """float32 inputs that are seldom drawn: what shared memory has no room for, borders a rounding apart, odd rows."""
    inputs = make_inputs(size=(8, 16), channels=30, cells=3000) if number == 0 else make_inputs(size=(8, 40), cells=9)
    if number in (1, 2):
        sites = inputs["sites"]
        sites.copy_(sites[:, :1] + torch.linspace(0, 1e-6, 9).view(1, 9, 1) * torch.tensor([1.0, (-1.0) ** number]))
    if number == 3:
        inputs = make_inputs(size=(5, 40))
        padded = torch.nn.functional.pad(inputs["mask"], (0, 1))[
            :1, ..., :-1
        ]  # every row begins elsewhere, the first well
        inputs["mask"] = padded.expand_as(inputs["mask"])
    return inputs


RARE = 4


def move_sites(inputs: dict[str, Any], draw: random.Random) -> None:
    """Far away, side by side, not finite, or as they are."""
    sites = inputs["sites"]
    kind = draw.choice(["as they are", "as they are", "far", "farther", "side by side", "not finite", "none finite"])
    if kind == "far":
        sites.mul_(1000).sub_(500)
    elif kind == "farther":
        sites.mul_(draw.choice([1e19, 1e-40, 3e38, 1e200])).add_(draw.choice([0, 1e7]))
    elif kind == "side by side":
        sites.copy_(sites[:, :1] + torch.linspace(0, draw.choice([1e-9, 1e-6]), sites.shape[1]).view(1, -1, 1))
    elif kind == "not finite":
        sites[:, :: draw.choice([2, 3])] = draw.choice([math.nan, math.inf, -math.inf])
    elif kind == "none finite":
        sites.fill_(math.inf)


def laid_out(tensor: Tensor, draw: random.Random) -> Tensor:
    """The same values in another layout."""
    kind = draw.choice(["contiguous", "contiguous", "channels last", "wider rows", "shifted", "turned", "one for all"])
    if kind == "channels last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if kind in ("wider rows", "shifted"):
        by = draw.choice([1, 3, 8])
        wide = torch.nn.functional.pad(tensor, (by, 0) if kind == "shifted" else (0, by))
        return wide[..., by:] if kind == "shifted" else wide[..., :-by]
    if kind == "turned":
        return tensor.mT.contiguous().mT
    if kind == "one for all":
        return tensor[:1].expand_as(tensor)
    return tensor


def differences(library: ctypes.CDLL, cases: int, dtypes: list[torch.dtype], *, first_only: bool = False) -> list[int]:
    """Numbers of the cases that come out otherwise than the plain kernel says."""
    fences, different = Fences(), []
    for number in range(cases):
        draw = random.Random(number)
        inputs = rare_case(number) if number < RARE else draw_case(draw, dtypes)
        fences.draw = None if number < RARE else draw
        rows, order = draw.choice([1, 2, 65535]), draw.randrange(9)
        settings = Settings(draw.choice([1, 2, 132]), draw.choice([0, 1, 8]), rows, order)
        if not equal_bits(on_host(library, inputs, settings, fences), composite_plain(**inputs)):
            different.append(number)
        fences.release()
        if first_only and (different or library.divergent_barriers() or library.broken_fences()):
            break
    return different


def outcome(library: ctypes.CDLL, cases: int) -> dict[str, Any]:
    """Of the kernel as it is."""
    different = differences(library, cases, [torch.float32, *IMAGE_DTYPES])
    faults = {"divergent barriers": library.divergent_barriers(), "broken fences": library.broken_fences()}
    return {"cases": cases, "different": different, **faults}


def missed(library: ctypes.CDLL, cases: int, mistakes: int) -> list[int]:
    """Numbers of the mistakes that leave everything as it should be, each in a child: it may end by a signal."""
    seen_nothing = []
    for number in range(mistakes + 1):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            library.make_mistake(number)
            caught = True
            try:
                different = differences(library, cases, [torch.float32], first_only=True)
                caught = bool(different or library.divergent_barriers() or library.broken_fences())
            finally:
                os._exit(int(caught))
        if os.waitpid(child, 0)[1] == 0:
            seen_nothing.append(number)
    return seen_nothing


if __name__ == "__main__":
    torch.set_num_threads(1)
    compiled = ctypes.CDLL(sys.argv[1])
    compiled.divergent_barriers.restype = compiled.broken_fences.restype = ctypes.c_int64
    numbers = [int(word) for word in sys.argv[2:]]
    print(json.dumps(missed(compiled, *numbers) if len(numbers) == 2 else outcome(compiled, *numbers)))
