"""LRP-Flex as a zennit composite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from zennit.core import Composite, Hook, RemovableHandle, RemovableHandleList

from torch_bgdebias.checks import check_option
from torch_bgdebias.lrp.engine import FlexPass
from torch_bgdebias.lrp.switch import Switch

__all__ = ["FlexComposite"]


class FlexComposite(Composite):  # type: ignore[misc]
    """LRP-epsilon as a modified gradient ("LRP-Flex", S-FI), for any architecture.

    The gradient that leaves a ReLU with output a is scaled by a / (a + epsilon), smooth activations pass f(x) / x,
    normalisation layers and attention weights count as constants, and all else is the plain gradient. With zennit's
    ``Gradient`` attributor the result is the relevance: input x modified gradient, of the model's first argument.

    A single hook on the outermost module opens a `torch_bgdebias.lrp.engine.FlexPass` for the forward pass, so
    that modules and functional forms, in place and reused, are treated alike. As with any composite, the backward
    passes within its context are relevance passes, unless it is ``inactive()``.

    Args:
        epsilon: stabiliser, >= 0; with 0 the relevance of a ReLU network is input x gradient.
        batch_norm: "linear": a training batch's statistics are constants in the relevance pass; "exact": not.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zennit.attribution import Gradient
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with Gradient(model, FlexComposite(1e-2)) as attributor:
        ...     output, relevance = attributor(torch.rand(1, 3, 2, 2), torch.tensor([[1.0, 0.0]]))
        >>> relevance.shape
        torch.Size([1, 3, 2, 2])
    """

    def __init__(self, epsilon: float = 1e-2, *, batch_norm: str = "linear") -> None:
        if epsilon < 0:
            raise ValueError(f"epsilon: expected a number >= 0, got {epsilon}")
        self.epsilon = float(epsilon)
        self.batch_norm = check_option(batch_norm, ("linear", "exact"), name="batch_norm")
        super().__init__(module_map=self._hook_of)

    def _hook_of(self, context: dict[str, Any], name: str, module: nn.Module) -> Hook | None:
        return _FlexHook(self.epsilon, self.batch_norm) if name == "" else None


class _FlexHook(Hook):  # type: ignore[misc]
    """Opens a pass around the outermost module's forward; zennit's switch ``active`` is the pass's own."""

    def __init__(self, epsilon: float, batch_norm: str) -> None:
        self.switch = Switch()
        self.epsilon, self.batch_norm = epsilon, batch_norm
        self._open: list[FlexPass] = []
        super().__init__()

    @property
    def active(self) -> bool:
        return self.switch.active

    @active.setter
    def active(self, value: bool) -> None:
        self.switch.active = value

    def copy(self) -> _FlexHook:
        return _FlexHook(self.epsilon, self.batch_norm)

    def register(self, module: nn.Module) -> RemovableHandleList:
        before = module.register_forward_pre_hook(self._enter, with_kwargs=True)
        after = module.register_forward_hook(self._leave, always_call=True)
        return RemovableHandleList([RemovableHandle(self), before, after])

    def remove(self) -> None:
        self._close()
        self.active = False
        super().remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._open or not torch.is_grad_enabled():
            return None  # a call within the call
        if args and isinstance(args[0], Tensor) and args[0].requires_grad:
            args = (_TimesInput.apply(args[0], self.switch), *args[1:])
        flex = FlexPass(self.epsilon, batch_norm=self.batch_norm)
        flex.switch = self.switch
        flex.open()
        self._open.append(flex)
        return args, kwargs

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._close()

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()


class _TimesInput(Function):
    """A copy of the input; the relevance pass multiplies the gradient by it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, switch: Switch) -> Tensor:
        ctx.save_for_backward(x)
        ctx.switch = switch
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad * ctx.saved_tensors[0] if ctx.switch.active else grad), None
