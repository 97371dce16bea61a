"""Masks: reading them, making them, judging their quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.masks.encodings import MaskEncoding as MaskEncoding, MaskEncodingError as MaskEncodingError
    from torch_bgdebias.masks.grabcut import grabcut_masks as grabcut_masks
    from torch_bgdebias.masks.making.folder import (
        MadeFolder as MadeFolder,
        MakingSettings as MakingSettings,
        make_masks as make_masks,
    )
    from torch_bgdebias.masks.making.licences import Licence as Licence
    from torch_bgdebias.masks.making.named import mask_maker as mask_maker
    from torch_bgdebias.masks.making.protocol import (
        Hints as Hints,
        MadeMasks as MadeMasks,
        MaskMaker as MaskMaker,
        MaskMakingError as MaskMakingError,
    )
    from torch_bgdebias.masks.reading import open_mask as open_mask, read_mask as read_mask
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.masks.encodings": ["MaskEncoding", "MaskEncodingError"],
            "torch_bgdebias.masks.grabcut": ["grabcut_masks"],
            "torch_bgdebias.masks.making.folder": ["MadeFolder", "MakingSettings", "make_masks"],
            "torch_bgdebias.masks.making.licences": ["Licence"],
            "torch_bgdebias.masks.making.named": ["mask_maker"],
            "torch_bgdebias.masks.making.protocol": ["Hints", "MadeMasks", "MaskMaker", "MaskMakingError"],
            "torch_bgdebias.masks.reading": ["open_mask", "read_mask"],
        },
    )
