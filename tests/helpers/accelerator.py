"""An accelerator to prove on, without owning one, that a training step never waits for its device.

``SimulatedAccelerator`` keeps every tensor's values on the CPU behind a tensor that says it is somewhere else, so that
code takes the path it takes on a GPU, with real values that can be compared. Whatever would make the host wait for a
GPU is an error inside of ``no_waiting()``: reading a value, a result whose size depends on values, copies to and from
the host. ``CudaAccelerator`` asks CUDA itself. Tests take both through the fixture ``accelerator``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")
aten = torch.ops.aten

#: what a tensor of the simulated accelerator says of itself: the one device that autograd knows on every build
DEVICE = torch.device("meta")

#: CUDA kernels of these read a number back: a value, the size of the result, or whether an input was in range
WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount, aten.histc,
    aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.unique_dim_consecutive,
    aten._linalg_check_errors, aten.linalg_lstsq, aten.linalg_eig, aten.linalg_eigvals, aten._assert_scalar,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
COPYING = {aten._to_copy, aten.copy_, aten.copy}


class HostWaitError(AssertionError):
    """The host would have waited for the device."""


class _OnDevice(Tensor):
    """Says that it is on ``DEVICE``; ``value`` holds the numbers."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> _OnDevice:
        tensor = Tensor._make_wrapper_subclass(
            cls, value.shape, value.stride(), value.storage_offset(), dtype=value.dtype, device=DEVICE
        )
        tensor.value = value
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the simulated accelerator is used after it was switched off")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"simulated {self.cpu()!r}"


class _Generator(torch.Generator):
    """A generator that says it is on the device it was asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        simulated = torch.device(device) == DEVICE
        tensor = super().__new__(cls, "cpu" if simulated else device)
        tensor.simulated = simulated
        return tensor

    @property
    def device(self) -> torch.device:
        return DEVICE if self.simulated else super().device


class _Values(TorchDispatchMode):
    """Runs every operation on the values, and wraps what belongs on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.strict = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = kwargs.get("device")
        here = any(isinstance(x, _OnDevice) for x in tree_leaves((args, kwargs)))
        on_device = here if wanted is None else torch.device(wanted) == DEVICE
        if self.strict and (here or on_device):
            _check(func, args, kwargs, on_device)
        plain_args, plain_kwargs = tree_map(_value, (args, kwargs))
        if wanted is not None and on_device:
            plain_kwargs["device"] = torch.device("cpu")
        out = func(*plain_args, **plain_kwargs)
        if not on_device:
            return out
        out = tree_map(lambda x: _OnDevice(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out)


class _Makers(TorchFunctionMode):
    """torch.tensor and its kin leave the values out for ``DEVICE``: make them on the host, then copy, as on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and args[0].device == DEVICE:
            device = kwargs.pop("device", DEVICE)
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(device)
        return func(*args, **kwargs)


def _value(x: Any) -> Any:
    return x.value if isinstance(x, _OnDevice) else x


def _check(func: Any, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
    packet = func.overloadpacket
    if packet in WAITING or (packet is aten.repeat_interleave and kwargs.get("output_size") is None):
        raise HostWaitError(f"{func}: reads a number back from the device")
    if packet is aten.multinomial and (args[1] == 1 or not (args[2:] and args[2])):
        raise HostWaitError(f"{func}: a draw of one, or without replacement, reads back whether the weights are valid")
    if packet in INDEXING:
        masks = [x for x in args[1] if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)]
        filling = packet not in (aten.index, aten._unsafe_index) and args[2].numel() == 1 and len(args[1]) == 1
        if masks and not filling:  # x[mask] = number is a masked_fill_
            raise HostWaitError(f"{func}: indexing with a mask needs to know how many are set")
        if any(isinstance(x, Tensor) and not isinstance(x, _OnDevice) for x in args[1]):
            raise HostWaitError(f"{func}: positions come from the host")
    if packet in COPYING and not kwargs.get("non_blocking"):
        into = None if packet is aten._to_copy else args[0]
        source = args[0] if into is None else args[1]
        there = on_device if into is None else isinstance(into, _OnDevice)
        if isinstance(source, _OnDevice) and not there:
            raise HostWaitError(f"{func}: copies from the device to the host")
        if there and isinstance(source, Tensor) and not isinstance(source, _OnDevice) and not args[2:]:
            raise HostWaitError(f"{func}: copies from the host to the device and waits until it is there")


class SimulatedAccelerator:
    """Real values behind tensors that say they are elsewhere. Use as a context; tensors of it live inside."""

    device = DEVICE

    def __init__(self) -> None:
        self._values = _Values()
        self._stack = ExitStack()

    def __enter__(self) -> SimulatedAccelerator:
        self._stack.enter_context(_patched(torch, "Generator", _Generator))
        self._stack.enter_context(self._values)
        self._stack.enter_context(_Makers())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def strategy(self) -> Any:
        """For Lightning's trainer, which knows of no such device: moving tensors there is all that it needs."""
        from pytorch_lightning.accelerators import CPUAccelerator
        from pytorch_lightning.strategies import SingleDeviceStrategy

        class Anywhere(CPUAccelerator):
            def setup_device(self, device: torch.device) -> None:
                pass

        return SingleDeviceStrategy(device=self.device, accelerator=Anywhere())

    def put(self, values: T) -> T:
        """Tensors (in any nesting) or a module moved to the device; leaves that require a gradient still do."""
        if isinstance(values, nn.Module):
            return values.to(self.device)
        return tree_map(lambda x: x.detach().to(self.device).requires_grad_(x.requires_grad) if _is(x) else x, values)

    def get(self, values: T) -> T:
        """The values on the CPU."""
        return tree_map(lambda x: x.detach().cpu() if _is(x) else x, values)

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """Whatever would make the host wait raises `HostWaitError` in here."""
        self._values.strict = True
        try:
            yield
        finally:
            self._values.strict = False


class CudaAccelerator:
    """The same on a GPU: CUDA itself raises where the host would wait."""

    device = torch.device("cuda")

    def __enter__(self) -> CudaAccelerator:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def strategy(self) -> Any:
        """For Lightning's trainer."""
        from pytorch_lightning.accelerators import CUDAAccelerator
        from pytorch_lightning.strategies import SingleDeviceStrategy

        return SingleDeviceStrategy(device=torch.device("cuda", 0), accelerator=CUDAAccelerator())

    put = SimulatedAccelerator.put
    get = SimulatedAccelerator.get

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


ACCELERATORS: dict[str, Callable[[], SimulatedAccelerator | CudaAccelerator]] = {
    "simulated": SimulatedAccelerator,
    "cuda": CudaAccelerator,
}


def _is(x: Any) -> bool:
    return isinstance(x, Tensor)


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
