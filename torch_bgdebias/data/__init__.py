"""Masked data: folders, variants with other backgrounds, controlled correlation, adapters, drawn scenes, GrabCut masks.

Names are resolved when they are first used: importing this room imports neither torchvision, kornia nor OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.data.adapters import ImageNetS as ImageNetS, OxfordPets as OxfordPets, VOCObjects as VOCObjects
    from torch_bgdebias.data.concept_images import ConceptImages as ConceptImages
    from torch_bgdebias.data.correlated import (
        CAMERAS as CAMERAS,
        Camera as Camera,
        CorrelatedBackgrounds as CorrelatedBackgrounds,
    )
    from torch_bgdebias.data.coverage import with_coverage as with_coverage
    from torch_bgdebias.data.digits import (
        ThresholdMasked as ThresholdMasked,
        digits_with_masks as digits_with_masks,
        mnist_with_masks as mnist_with_masks,
        read_idx as read_idx,
    )
    from torch_bgdebias.data.examples import (
        EXAMPLE_CLASSES as EXAMPLE_CLASSES,
        example_folder as example_folder,
        example_loader as example_loader,
    )
    from torch_bgdebias.data.folder import (
        MaskedImageFolder as MaskedImageFolder,
        MaskedSample as MaskedSample,
    )
    from torch_bgdebias.data.imagenet9 import (
        IMAGENET9_RANGES as IMAGENET9_RANGES,
        ImageNet9 as ImageNet9,
        ImageNet9Sample as ImageNet9Sample,
        imagenet9_prediction as imagenet9_prediction,
        to_imagenet9 as to_imagenet9,
    )
    from torch_bgdebias.data.imagenet9_variants import ImageNet9Variants as ImageNet9Variants
    from torch_bgdebias.data.items import (
        ItemReader as ItemReader,
        MaskedItems as MaskedItems,
        MaskedStream as MaskedStream,
    )
    from torch_bgdebias.data.places import load_places365 as load_places365
    from torch_bgdebias.data.reading import MaskSizeError as MaskSizeError
    from torch_bgdebias.data.scenes import (
        SCENE_CATEGORIES as SCENE_CATEGORIES,
        Scenes as Scenes,
        draw_scenes as draw_scenes,
        paint_scenes as paint_scenes,
    )
    from torch_bgdebias.data.settings import FolderSettings as FolderSettings
    from torch_bgdebias.data.tensors import (
        MaskedTensorDataset as MaskedTensorDataset,
        MaskedTensors as MaskedTensors,
        MaskedVoidItem as MaskedVoidItem,
    )
    from torch_bgdebias.data.variants import VARIANTS as VARIANTS, Variant as Variant, make_variant as make_variant
    from torch_bgdebias.data.waterbirds import Waterbirds as Waterbirds
    from torch_bgdebias.data.with_masks import WithMasks as WithMasks
    from torch_bgdebias.files import UnreadableImageError as UnreadableImageError
    from torch_bgdebias.masks.encodings import MaskEncoding as MaskEncoding, MaskEncodingError as MaskEncodingError
    from torch_bgdebias.masks.grabcut import grabcut_masks as grabcut_masks
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.data.adapters": ["ImageNetS", "OxfordPets", "VOCObjects"],
            "torch_bgdebias.data.concept_images": ["ConceptImages"],
            "torch_bgdebias.data.correlated": ["CAMERAS", "Camera", "CorrelatedBackgrounds"],
            "torch_bgdebias.data.coverage": ["with_coverage"],
            "torch_bgdebias.data.digits": ["ThresholdMasked", "digits_with_masks", "mnist_with_masks", "read_idx"],
            "torch_bgdebias.data.examples": ["EXAMPLE_CLASSES", "example_folder", "example_loader"],
            "torch_bgdebias.data.folder": ["MaskedImageFolder", "MaskedSample"],
            "torch_bgdebias.data.imagenet9": [
                "IMAGENET9_RANGES",
                "ImageNet9",
                "ImageNet9Sample",
                "imagenet9_prediction",
                "to_imagenet9",
            ],
            "torch_bgdebias.data.imagenet9_variants": ["ImageNet9Variants"],
            "torch_bgdebias.data.items": ["ItemReader", "MaskedItems", "MaskedStream"],
            "torch_bgdebias.data.places": ["load_places365"],
            "torch_bgdebias.data.reading": ["MaskSizeError"],
            "torch_bgdebias.data.scenes": ["SCENE_CATEGORIES", "Scenes", "draw_scenes", "paint_scenes"],
            "torch_bgdebias.data.settings": ["FolderSettings"],
            "torch_bgdebias.data.tensors": ["MaskedTensorDataset", "MaskedTensors", "MaskedVoidItem"],
            "torch_bgdebias.data.variants": ["VARIANTS", "Variant", "make_variant"],
            "torch_bgdebias.data.waterbirds": ["Waterbirds"],
            "torch_bgdebias.data.with_masks": ["WithMasks"],
            "torch_bgdebias.files": ["UnreadableImageError"],
            "torch_bgdebias.masks.encodings": ["MaskEncoding", "MaskEncodingError"],
            "torch_bgdebias.masks.grabcut": ["grabcut_masks"],
        },
    )
