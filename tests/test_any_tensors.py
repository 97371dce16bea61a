"""Finite tensors of any dtype, size and layout: every public function gives finite values and gradients, or names what
it was given."""

from __future__ import annotations

import warnings
from typing import Any

import promises_of_layers  # noqa: F401
import promises_of_metrics  # noqa: F401
import promises_of_networks  # noqa: F401
import pytest
import torch
from any_tensors import NAMED, argument_names, default_dtype, drawn_by, names_an_argument, not_finite
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from promises import LEFT_OUT, PROMISES, public, with_tensors

#: one example's call stands for several names
NAMES: dict[str, list[str]] = {}
for _name, _promise in PROMISES.items():
    NAMES.setdefault(next(name for name, other in PROMISES.items() if other.call is _promise.call), []).append(_name)


def outcome(name: str, data: Any) -> str | None:
    """What one example did wrong."""
    promise = PROMISES[name]
    drawn = drawn_by(data, least=promise.least)
    names = set(promise.words).union(*(argument_names(public(each)) for each in NAMES[name]))
    with warnings.catch_warnings(), default_dtype(drawn.default_dtype):
        warnings.simplefilter("ignore")
        try:
            result = promise.call(drawn)
            faults = not_finite(result, drawn.leaves, promise.undefined)
        except NAMED as error:
            faults = [] if names_an_argument(error, names) else [f"{type(error).__name__} names no argument: {error}"]
    return f"{drawn}: {faults}" if faults else None


def run(name: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def each(data: Any) -> None:
        assert outcome(name, data) is None

    each()


@pytest.mark.parametrize("name", NAMES)
def test_finite_or_named(name):
    run(name, 6 if PROMISES[name].heavy else 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_finite_or_named_many_times(name):
    run(name, 100 if PROMISES[name].heavy else 500)


def test_no_public_function_is_forgotten():
    shown = with_tensors()
    assert sorted(set(shown) - set(PROMISES) - set(LEFT_OUT)) == []
    assert sorted(set(PROMISES) & set(LEFT_OUT)) == []
    assert sorted(set(LEFT_OUT) - set(shown)) == []
    assert all(callable(public(name)) for name in PROMISES)


@pytest.mark.parametrize("broken", ["infinite", "gradient", "unnamed", "other"])
def test_what_breaks_the_promise_is_seen(broken, monkeypatch):
    def call(drawn: Any) -> Any:
        weight = torch.zeros(3, requires_grad=True)
        drawn.leaves.append(weight)
        if broken == "unnamed":
            raise ValueError("something is wrong")
        if broken == "other":
            raise RuntimeError("relevance: something is wrong")
        return weight.sqrt() if broken == "gradient" else torch.tensor([1.0, torch.inf])

    name = "metrics.pixel_ratio"
    monkeypatch.setitem(PROMISES, name, type(PROMISES[name])(call))
    with pytest.raises((AssertionError, RuntimeError)):
        run(name, 1)
