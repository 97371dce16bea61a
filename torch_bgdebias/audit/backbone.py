"""Embeddings by a named pretrained network of pictures whose objects are hidden."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torch_bgdebias.audit.gathering import Embed
from torch_bgdebias.audit.settings import AuditSettings
from torch_bgdebias.models import call_behind_output, eval_mode, find_head, tap
from torch_bgdebias.named_models import load_model

__all__ = ["backbone_embedding", "layer_input"]


def backbone_embedding(options: AuditSettings) -> Embed:
    """What enters the last layer of the backbone that ``options`` names, for a batch (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: no such model. ImportError: timm or torchvision is not there. LookupError: no last linear layer.
    """
    assert options.backbone is not None
    loaded = load_model(options.backbone, checkpoint=options.checkpoint, pretrained=options.pretrained)
    layer, _ = find_head(loaded.model)

    def embed(image: Tensor) -> NDArray[np.float32]:
        return layer_input(loaded.model, layer, loaded.preprocessing(image))

    return embed


def layer_input(model: nn.Module, layer: str, image: Tensor) -> NDArray[np.float32]:
    """The input (B, D) of a layer that runs once in a pass, for images as the model takes them.

    Raises:
        ValueError: none of its calls, or several, can be the one that the model's output comes from.
    """
    with torch.no_grad(), eval_mode(model), tap(model, [layer]) as layer_tap:
        output = model(image)
    number = call_behind_output(layer_tap.outputs[layer], output)
    if number is None:
        calls = len(layer_tap.outputs[layer])
        raise ValueError(f"layer {layer!r}: expected one call whose output the model returns, got {calls} calls")
    embedding: Tensor = layer_tap.inputs[layer][number]
    values: NDArray[np.float32] = embedding.flatten(1).float().cpu().numpy()
    return values
