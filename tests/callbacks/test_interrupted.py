"""Wherever a training ends by an error, the module is what it is when the same error ends it without a callback."""

from __future__ import annotations

import importlib
import inspect

import pytest
import small_training as small
import torch
from torch import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
]
PACKAGE = importlib.import_module(small.PACKAGES[0])
HOOKS = [
    name for name, _ in inspect.getmembers(PACKAGE.Callback, inspect.isfunction)
    if name.startswith(("on_", "setup", "teardown")) and name != "on_exception"
]  # fmt: skip
VARIED = {name: make for name, make in small.VARIED.items() if name not in small.READING}


class Stop(Exception):
    """The user's own error."""


def fail(*args, **kwargs):
    raise Stop


class FailsOnce(nn.Module):
    """A layer that raises in one of its calls."""

    def __init__(self, call):
        super().__init__()
        self.call, self.calls = call, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.call:
            raise Stop
        return x


def state(module) -> dict[str, tuple]:
    """Modes, hooks, and what stands on the modules themselves, by name."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return {
        name: (each.training, sorted(set(vars(each)) - {"calls"}), [len(getattr(each, kind)) for kind in hooks])
        for name, each in module.named_modules()
    }


def ended(callbacks, module):
    """Whether a fit with validation was ended by the error, and what it left."""
    run = small.trainer(callbacks, max_epochs=1)
    own = set(vars(run.strategy))
    module.train()
    module.net[1].eval()  # a part that the user keeps frozen
    raised = False
    try:
        run.fit(module, small.loader(), small.loader())
    except Stop:
        raised = True
    return raised, state(module), set(vars(run.strategy)) - own, torch.is_grad_enabled()


@pytest.mark.parametrize("name", VARIED)
def test_an_error_in_any_hook_of_another_callback(name):
    for hook in HOOKS:
        other = type("Other", (PACKAGE.Callback,), {hook: fail})
        expected = ended([other()], small.theirs())
        for order in (1, -1):
            assert ended([VARIED[name](), other()][::order], small.theirs()) == expected, (hook, order)


@pytest.mark.parametrize("name", VARIED)
def test_an_error_in_any_hook_of_the_module(name):
    for hook in [*filter(lambda hook: hasattr(PACKAGE.LightningModule, hook), HOOKS), "configure_optimizers"]:
        expected = ended([], small.theirs(**{hook: fail}))
        assert ended([VARIED[name]()], small.theirs(**{hook: fail})) == expected, hook


def with_failing_layer(place, call):
    layers = list(small.network())
    layers.insert(place, FailsOnce(call))
    module = small.theirs()
    module.net = nn.Sequential(*layers)
    return module


@pytest.mark.parametrize("name", VARIED)
def test_an_error_in_any_call_of_a_layer_while_training(name):
    """Two calls are the sanity check's; the third and fourth are training's, whatever a callback adds to them."""
    for place in (0, 2, 5, 6):
        expected = ended([], with_failing_layer(place, 3))
        assert expected[0]
        for call in (3, 4):
            assert ended([VARIED[name]()], with_failing_layer(place, call)) == expected, (place, call)


@pytest.mark.parametrize("name", VARIED)
def test_after_an_error_a_callback_trains_as_a_new_one(name):
    callback = VARIED[name]()
    for hook in ("on_train_start", "on_before_backward", "on_after_backward", "on_validation_batch_end"):
        assert ended([callback, type("Other", (PACKAGE.Callback,), {hook: fail})()], small.theirs())[0]
    modules = [small.theirs(), small.theirs()]
    for each, module in zip((callback, VARIED[name]()), modules, strict=True):
        small.trainer([each]).fit(module, small.loader())
    assert torch.equal(small.weights(modules[0]), small.weights(modules[1]))
