"""Layer-wise relevance propagation that can be trained through.

`FlexComposite`, `trainable` and `relevance` need zennit, which is imported when one of them is first
used. The engine beneath LRP-Flex (`torch_bgdebias.lrp.engine.FlexPass`) needs torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.lrp.composites import FlexComposite as FlexComposite
    from torch_bgdebias.lrp.engine import FlexPass as FlexPass
    from torch_bgdebias.lrp.propagation import relevance as relevance
    from torch_bgdebias.lrp.rules import trainable as trainable
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.lrp.composites": ["FlexComposite"],
            "torch_bgdebias.lrp.engine": ["FlexPass"],
            "torch_bgdebias.lrp.propagation": ["relevance"],
            "torch_bgdebias.lrp.rules": ["trainable"],
        },
    )
