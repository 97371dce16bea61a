"""The public surface: every promised name resolves, is documented, and nothing else is promised."""

from __future__ import annotations

import inspect

import pytest

import torch_bgdebias
from torch_bgdebias import callbacks

NAMES = [name for name in torch_bgdebias.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_name_resolves_and_is_documented(name):
    value = getattr(torch_bgdebias, name)
    assert inspect.getdoc(value), f"{name} has no docstring"


@pytest.mark.parametrize("name", callbacks.__all__)
def test_callbacks_resolve(name):
    import pytorch_lightning as pl

    assert issubclass(getattr(callbacks, name), pl.Callback)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'BackgroundSwop'"):
        _ = torch_bgdebias.BackgroundSwop
    with pytest.raises(AttributeError, match="BackgroundSwapCallback"):
        _ = callbacks.SwapCallback


def test_dir_lists_what_is_there():
    assert set(torch_bgdebias.__all__) <= set(dir(torch_bgdebias))
    assert len(set(torch_bgdebias.__all__)) == len(torch_bgdebias.__all__)


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isclass(getattr(torch_bgdebias, n, None))])
def test_public_methods_are_documented(name):
    cls = getattr(torch_bgdebias, name)
    for method, value in vars(cls).items():
        if not method.startswith("_") and callable(value) and method not in {"forward", "update", "compute"}:
            assert inspect.getdoc(value), f"{name}.{method} has no docstring"
