"""Inputs of which one thing is wrong, with what the error must say, and names that somebody could give to a class.

A room's test of bad input goes through the tables that its function takes, so that none of them is forgotten:
``@hostile.wrong(image=IMAGES, mask=MASKS, label=LABELS)``, then ``wrong.refused_by(function, image=image, ...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor


class Case(NamedTuple):
    """How a right argument becomes a wrong one, and the error; ``{name}`` stands for the argument's name."""

    change: Callable[[Tensor], Any]
    error: type[Exception]
    text: str


#: eighteen names of classes, models and files that a page must show and never run
HOSTILE = [
    "<script>hacked()</script>",
    "</script><script>hacked()</script>",
    "</style><script>hacked()</script>",
    "</title><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "<svg onload=hacked()>",
    "<svg><script>hacked()</script></svg>",
    "'><img src=x onerror=hacked()>",
    '"><img src=x onerror=hacked()>',
    "' onmouseover='hacked()' x='",
    '" autofocus onfocus="hacked()" x="',
    "<iframe srcdoc='<script>parent.hacked()</script>'></iframe>",
    "<a href='javascript:hacked()' id=footnotes>x</a>",
    "{{ 7 * 7 }}{% include 'page.js' %}",
    "{{ self.__init__.__globals__ }}",
    "]]><script>hacked()</script><!--",
    "&lt;script&gt;hacked()&lt;/script&gt;",
    "\u2028<base href=//evil><meta http-equiv=refresh content=0>",
]
#: what a damaged or forged file of JSON may hold in any place
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 0.5, 2**70, -(2**63), 10**400, 1e308, float("inf"), "", "x" * 5000, "\udce9", [], {}, [[]],
    [None], {"a": 1}, {"shape": [2**40, 3], "zlib_base64": "eJw="}, "<script>alert(1)</script>", [1] * 3, ["a"] * 3,
]  # fmt: skip


class Wrong(NamedTuple):
    """A case of one argument, for `pytest.mark.parametrize`."""

    argument: str
    what: str
    case: Case

    def __str__(self) -> str:
        return f"{self.argument}: {self.what}"

    def refused_by(self, call: Callable[..., Any], *, called: str | None = None, **arguments: Any) -> None:
        """The call takes the arguments, and names the one that is wrong, which its errors may call otherwise."""
        call(**arguments)
        text = self.case.text.replace("{name}", called or self.argument)
        with pytest.raises(self.case.error, match=text):
            call(**{**arguments, self.argument: self.case.change(arguments[self.argument])})


def _last(value: float) -> Callable[[Tensor], Tensor]:
    """A value in the last sample alone."""

    def change(values: Tensor) -> Tensor:
        changed = values.clone()
        changed[-1].fill_(value)
        return changed

    return change


#: of images (B, C, H, W), floating point
IMAGES = {
    "none": Case(lambda x: None, TypeError, "{name}: expected a float tensor"),
    "a list": Case(lambda x: x.tolist(), TypeError, "{name}: expected a float tensor"),
    "bytes": Case(lambda x: (x * 255).byte(), TypeError, "{name}: expected a floating point tensor, got uint8"),
    "one image": Case(lambda x: x[0], ValueError, r"{name}: expected shape \(B, C, H, W\)"),
    "no pixels": Case(lambda x: x[..., :0], ValueError, "{name}: expected shape .* at least one pixel"),
    "NaN": Case(_last(torch.nan), ValueError, r"{name}: expected finite values, got NaN or infinity in sample\(s\)"),
    "infinite": Case(_last(-torch.inf), ValueError, "{name}: expected finite values, got NaN or infinity in sample"),
}
#: of masks (B, 1, H, W), floating point in [0, 1]
MASKS = {
    "a list": Case(lambda x: x.tolist(), TypeError, "{name}: expected a bool or float tensor"),
    "integers": Case(lambda x: x.long(), TypeError, "{name}: expected bool or floating point in .*got int64"),
    "bytes": Case(lambda x: (x * 255).byte(), TypeError, "{name}: expected bool or floating point .*mask > 127"),
    "three channels": Case(lambda x: x.expand(-1, 3, -1, -1), ValueError, r"{name}: expected shape \(B, 1, H, W\)"),
    "one picture's": Case(lambda x: x[0, 0], ValueError, r"{name}: expected shape \(B, 1, H, W\)"),
    "narrower": Case(lambda x: x[..., :-1], ValueError, r"{name}: expected shape \(\d+, 1, \d+, \d+\) to go with"),
    "fewer": Case(lambda x: x[:-1], ValueError, r"{name}: expected shape \(\d+, 1, \d+, \d+\) to go with the image"),
    "up to 255": Case(lambda x: x * 0 + 255, ValueError, r"{name}: expected values in \[0, 1\], got \[255, 255\]"),
    "below 0": Case(_last(-0.1), ValueError, r"{name}: expected values in \[0, 1\], got \[-0.1, "),
    "huge": Case(_last(1e30), ValueError, r"{name}: expected values in \[0, 1\], got \[0, 1e\+30\]"),
    "NaN": Case(_last(torch.nan), ValueError, r"{name}: expected values in \[0, 1\], got \[nan, nan\]"),
}
#: of labels (B,), whole numbers
LABELS = {
    "floats": Case(lambda x: x.float(), TypeError, "{name}: expected integer classes"),
    "one-hot": Case(lambda x: torch.eye(9)[x].long(), ValueError, r"{name}: expected shape \(\d+,\)"),
    "fewer": Case(lambda x: x[:-1], ValueError, r"{name}: expected shape \(\d+,\)"),
}


def wrong(*, but: Collection[str] = (), **tables: Mapping[str, Case]) -> Any:
    """The cases of some arguments as a parameter ``wrong`` of a test; ``but`` those that are no errors here.

    Only what a function really takes belongs there: ``"label: fewer"`` where labels may be fewer.
    """
    cases = [Wrong(name, what, case) for name, table in tables.items() for what, case in table.items()]
    unknown = set(but) - {str(case) for case in cases}
    assert not unknown, f"no such cases: {unknown}"
    return pytest.mark.parametrize("wrong", [case for case in cases if str(case) not in but], ids=str)
