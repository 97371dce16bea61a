"""Trainable versions of zennit's rules: the same relevance, with gradients to the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call
from zennit.core import BasicHook, Composite, ParamMod, zero_wrap

__all__ = ["trainable"]

Rule = TypeVar("Rule")


class _Trainable(BasicHook):  # type: ignore[misc]
    """Mixed in before a rule: its modifiers act on the live parameters, in a functional call, and the graph stays."""

    def backward(self, module: nn.Module, grad_input: Any, grad_output: Any) -> tuple[Tensor | None, ...]:
        """The rule's relevance at the module's input; differentiable where the running backward pass is."""
        original, *others = self.stored_tensors["input"]
        keywords = self.stored_tensors.get("kwargs", {})
        create_graph = torch.is_grad_enabled()
        inputs, outputs = [], []
        with torch.enable_grad():
            if not create_graph:
                original = original.detach()
            modifiers = zip(self.input_modifiers, self.param_modifiers, self.output_modifiers, strict=True)
            for modify_input, modify_param, modify_output in modifiers:
                layer_input = modify_input(original)
                # each its own tensor: gradients to one must not contain another's
                layer_input = (
                    layer_input.clone() if layer_input.requires_grad else layer_input.detach().requires_grad_()
                )
                parameters = _modified(module, ParamMod.ensure(modify_param))
                output = functional_call(_Forward(module), parameters, (layer_input, *others), keywords)
                inputs.append(layer_input)
                outputs.append(modify_output(output))
            gradients = torch.autograd.grad(
                outputs, inputs, grad_outputs=self.gradient_mapper(grad_output[0], outputs), create_graph=create_graph
            )
        relevance = self.reducer(inputs, gradients)
        return tuple(relevance if g is not None and g.shape == relevance.shape else None for g in grad_input)


class _Forward(nn.Module):
    """Calls a module's forward without its hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


def _modified(module: nn.Module, mod: ParamMod) -> dict[str, Tensor]:
    """The live parameters of ``module``, changed as ``mod`` says, by their name inside `_Forward`."""
    keys = mod.param_keys
    if keys is None:
        keys = [name for name, _ in module.named_parameters(recurse=False)]
    missing = [key for key in keys if not hasattr(module, key)]
    if missing and mod.require_params:
        raise RuntimeError(f"{type(module).__name__} has no parameter {', '.join(missing)}, which the rule needs")
    modifier = zero_wrap(mod.zero_params or [])(mod.modifier)
    parameters = {key: getattr(module, key) for key in keys if key not in missing}
    return {f"module.{key}": modifier(value, key) for key, value in parameters.items() if value is not None}


#: rule -> its trainable subclass, one each, so that the types of two equal rules are equal
_subclasses: dict[Any, type[BasicHook]] = {}


def _subclass(rule: type[BasicHook]) -> type[BasicHook]:
    if issubclass(rule, _Trainable):
        return rule
    if rule not in _subclasses:
        body = {"__doc__": rule.__doc__, "__module__": __name__}
        _subclasses[rule] = type(f"Trainable{rule.__name__}", (_Trainable, rule), body)
    return _subclasses[rule]


@overload
def trainable(rule: type[Rule]) -> type[Rule]: ...
@overload
def trainable(rule: Rule) -> Rule: ...


def trainable(rule: Any) -> Any:
    """Turn a zennit rule into one whose relevance can be trained through.

    zennit computes relevance on copies of the weights, so the relevance's gradient to the weights is silently wrong
    or missing, and release 1.0.0 exchanges the parameter objects. The rule returned here is a subclass of the rule
    given, with the same modifiers, applied to the live parameters in a functional call: the relevance is the same and
    its gradients are those of finite differences. zennit is not changed.

    Args:
        rule: a rule built on zennit's ``BasicHook`` (Epsilon, ZPlus, AlphaBeta, Gamma, ZBox, WSquare, Flat, Norm, or
            your own), as an instance or as a class; or a composite, whose rules are converted as they are handed out.

    Raises:
        TypeError: something else. Hooks without parameters of their own (``Pass``) need no conversion.
        ValueError: a composite with canonizers, which rewrite weights outside of the graph.

    Example:
        >>> from zennit.rules import Epsilon
        >>> rule = trainable(Epsilon(1e-2))
        >>> isinstance(rule, Epsilon), isinstance(rule, trainable(Epsilon))
        (True, True)
    """
    if isinstance(rule, type) and issubclass(rule, BasicHook):
        return _subclass(rule)
    if isinstance(rule, BasicHook):
        rule_copy = rule.copy()
        rule_copy.__class__ = _subclass(type(rule))
        return rule_copy
    if isinstance(rule, Composite):
        if rule.canonizers:
            names = ", ".join(type(c).__name__ for c in rule.canonizers)
            raise ValueError(
                f"composite: canonizers ({names}) rewrite weights outside of the graph; pass canonizers=[]"
            )
        return Composite(functools.partial(_converted, rule.module_map))
    raise TypeError(f"rule: expected a zennit BasicHook, a class of such, or a Composite, got {rule!r}")


def _converted(module_map: Callable[..., Any], context: dict[str, Any], name: str, module: nn.Module) -> Any:
    template = module_map(context, name, module)
    return trainable(template) if isinstance(template, BasicHook) else template
