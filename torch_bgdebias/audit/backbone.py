"""Embeddings by a named pretrained network of pictures whose objects are hidden."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.audit.gathering import Embed
from torch_bgdebias.audit.settings import AuditSettings
from torch_bgdebias.models import eval_mode, find_head, tap
from torch_bgdebias.named_models import load_model

__all__ = ["backbone_embedding"]


def backbone_embedding(options: AuditSettings) -> Embed:
    """What enters the last layer of the backbone that ``options`` names, for a batch (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: no such model. ImportError: timm or torchvision is not there. LookupError: no last linear layer.
    """
    assert options.backbone is not None
    loaded = load_model(options.backbone, checkpoint=options.checkpoint, pretrained=options.pretrained)
    layer, _ = find_head(loaded.model)

    def embed(image: Tensor) -> NDArray[np.float32]:
        with torch.no_grad(), eval_mode(loaded.model), tap(loaded.model, [layer]) as seen:
            loaded.model(loaded.preprocessing(image))
        entering: Tensor = seen.inputs[layer][-1]
        return entering.flatten(1).float().numpy()

    return embed
