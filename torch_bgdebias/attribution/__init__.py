"""Where a model looks: Grad-CAM, KernelSHAP and LRP on whole batches of tensors, on their device.

Every function takes the user's model and returns attributions (B, 1, H, W) of one class a sample. The model is left as
it was. `torch_bgdebias.metrics.pixel_ratio` turns an attribution into the foreground's share.
"""

from __future__ import annotations

from torch_bgdebias.attribution.grad_cam import find_map_layer, grad_cam
from torch_bgdebias.attribution.kernel_shap import KernelShap, kernel_shap, sample_coalitions, superpixels
from torch_bgdebias.attribution.relevance import lrp  # imports zennit when it is called

__all__ = ["KernelShap", "find_map_layer", "grad_cam", "kernel_shap", "lrp", "sample_coalitions", "superpixels"]
