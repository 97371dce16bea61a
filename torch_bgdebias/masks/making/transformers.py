"""Makers from transformers: CLIPSeg, SAM (1, 2, HQ, 3), Grounding DINO with SAM, and networks of semantic classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from torch_bgdebias._optional import require
from torch_bgdebias.files import first_few
from torch_bgdebias.masks.making.licences import Licence, card_licence, known_licence
from torch_bgdebias.masks.making.protocol import Hints, MadeMasks, MaskMakingError, certainty, whole_boxes

__all__ = ["ClipSegMaker", "GroundedSamMaker", "Sam3Maker", "SamMaker", "SemanticMaker", "transformers_maker"]

#: by ``model_type`` of the configuration
_SAM = {"sam": "SamModel", "sam2": "Sam2Model", "sam_hq": "SamHQModel"}
_GROUNDED = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2")
#: what a detector must be sure of
_LEAST_SCORE = 0.3


def transformers_maker(model: str, *, device: torch.device) -> _Maker:
    """The maker of a published name, a folder that ``save_pretrained`` wrote, or a detector and SAM with a + between.

    Raises:
        ImportError: transformers is not there. OSError: no such model or folder. ValueError: a model of another kind.
    """
    package: Any = require("transformers", purpose=f"--with transformers:{model}")
    detector, plus, sam = model.partition("+")
    if (Path(detector).is_absolute() or detector.startswith(".")) and not Path(detector).is_dir():
        raise FileNotFoundError(f"--with transformers:{detector}: there is no such folder")
    if plus:
        return GroundedSamMaker(package, detector, transformers_maker(sam, device=device), device=device)
    try:
        config = package.AutoConfig.from_pretrained(model)
    except ValueError as error:
        raise ValueError(
            f"--with transformers:{model}: of no kind that transformers itself knows ({error}); code from elsewhere is "
            "not run: export the model to ONNX and use onnx:FILE"
        ) from error
    kind = config.model_type
    if kind == "clipseg":
        return ClipSegMaker(package, model, device=device)
    if kind in _SAM:
        return SamMaker(package, model, _SAM[kind], device=device)
    if kind in ("sam3", "sam3_video"):
        return Sam3Maker(package, model, device=device)
    if kind in _GROUNDED:
        raise ValueError(f"--with transformers:{model}: finds boxes; name a SAM too: transformers:{model}+SAM_MODEL")
    if type(config) in package.AutoModelForSemanticSegmentation._model_mapping:
        return SemanticMaker(package, model, device=device)
    raise ValueError(
        f"--with transformers:{model}: expected clipseg, {', '.join(_SAM)}, sam3, {_GROUNDED[0]}+sam or a network of "
        f"semantic classes, got a {kind}"
    )


class _Maker:
    """Base of the makers: weights on a device, licence, images as the processor wants them."""

    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def __init__(self, package: Any, model: str, network: str, *, device: torch.device) -> None:
        self.name = f"transformers:{model}"
        self.licence: Licence = (
            card_licence(Path(model)) if Path(model).is_dir() else known_licence("transformers", model)
        )
        self.device = device
        self.processor = package.AutoProcessor.from_pretrained(model)
        self.network = getattr(package, network).from_pretrained(model).to(device).eval()

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            return self._masks(images, hints)

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        raise NotImplementedError

    def _texts(self, hints: Hints) -> list[str]:
        if any(text is None for text in hints.texts):
            raise MaskMakingError(f"{self.name}: expected what the object is called; give --prompt, or class folders")
        return [str(text) for text in hints.texts]

    def _to_device(self, inputs: Any) -> dict[str, Any]:
        return {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in inputs.items()}


def _pictures(images: Tensor) -> list[Any]:
    """(H, W, 3) uint8 arrays, which every processor takes for what they are."""
    return list(images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


class ClipSegMaker(_Maker):
    """CLIPSeg: where a text fits the picture."""

    takes = needs = frozenset({"text"})

    def __init__(self, package: Any, model: str, *, device: torch.device) -> None:
        super().__init__(package, model, "CLIPSegForImageSegmentation", device=device)

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        inputs = self.processor(
            text=self._texts(hints), images=_pictures(images), padding=True, truncation=True, return_tensors="pt"
        )
        logits = self.network(**self._to_device(inputs)).logits
        logits = logits[None] if logits.ndim == 2 else logits  # of one image it leaves the batch out
        mask = torch.sigmoid(_resized(logits[:, None], images)[:, 0])
        return MadeMasks(mask, certainty(mask))


class SamMaker(_Maker):
    """SAM with boxes: of the masks that it proposes for a box the one it rates best; several boxes are joined."""

    takes = needs = frozenset({"boxes"})

    def __init__(self, package: Any, model: str, network: str, *, device: torch.device) -> None:
        super().__init__(package, model, network, device=device)

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        results = [self._one(image, boxes) for image, boxes in zip(images, hints.boxes, strict=True)]
        return MadeMasks(
            torch.stack([mask for mask, _ in results]), torch.stack([confidence for _, confidence in results])
        )

    def _one(self, image: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor]:
        if boxes is None or not len(boxes):
            return torch.zeros(image.shape[1:]), torch.zeros(())
        corners = boxes[:, [1, 0, 3, 2]].float()  # x before y
        inputs = self.processor(_pictures(image[None]), input_boxes=[corners.tolist()], return_tensors="pt")
        outputs = self.network(**self._to_device(inputs))
        scores, planes = outputs.iou_scores[0], outputs.pred_masks[0]  # (K, M), (K, M, h, w)
        best = scores.argmax(1)
        rows = torch.arange(len(best), device=best.device)
        sizes = inputs["original_sizes"]
        input_sizes = [inputs["reshaped_input_sizes"]] if "reshaped_input_sizes" in inputs else []
        (logits,) = self.processor.image_processor.post_process_masks(
            [planes[rows, best][None].cpu()], sizes, *input_sizes, binarize=False
        )
        return torch.sigmoid(logits[0].float()).amax(0), scores[rows, best].float().mean().clamp(0, 1).cpu()


class Sam3Maker(_Maker):
    """SAM 3 with a text: all that it finds of it, weighted by nothing but its own threshold."""

    takes = needs = frozenset({"text"})

    def __init__(self, package: Any, model: str, *, device: torch.device) -> None:
        super().__init__(package, model, "Sam3Model", device=device)

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        inputs = self.processor(images=_pictures(images), text=self._texts(hints), return_tensors="pt")
        outputs = self.network(**self._to_device(inputs))
        size = (images.shape[2], images.shape[3])
        instances = self.processor.post_process_instance_segmentation(
            outputs, threshold=_LEAST_SCORE, target_sizes=[size] * len(images)
        )
        masks = [_joined(detection["masks"], size) for detection in instances]
        confidences = [
            detection["scores"].float().max().cpu() if len(detection["scores"]) else torch.zeros(())
            for detection in instances
        ]
        return MadeMasks(torch.stack(masks), torch.stack(confidences))


class GroundedSamMaker(_Maker):
    """A detector that takes text finds boxes, SAM fills them; sure as both together."""

    takes = needs = frozenset({"text"})

    def __init__(self, package: Any, detector: str, sam: _Maker, *, device: torch.device) -> None:
        if not isinstance(sam, SamMaker):
            raise ValueError(f"--with transformers:{detector}+...: expected a SAM after the +, got {sam.name}")
        super().__init__(package, detector, "AutoModelForZeroShotObjectDetection", device=device)
        own_licence = self.licence
        self.sam = sam
        self.name = f"{self.name}+{sam.name.partition(':')[2]}"
        self.licence = Licence(
            " and ".join(dict.fromkeys([own_licence.name, sam.licence.name])),
            "; ".join(dict.fromkeys([own_licence.source, sam.licence.source])),
            own_licence.restricted or sam.licence.restricted,
            own_licence.gated or sam.licence.gated,
        )

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        texts = [f"{text.lower().rstrip('.')}." for text in self._texts(hints)]
        inputs = self.processor(images=_pictures(images), text=texts, padding=True, return_tensors="pt")
        outputs = self.network(**self._to_device(inputs))
        height, width = images.shape[2:]
        detected = self.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=_LEAST_SCORE, target_sizes=[(height, width)] * len(images)
        )
        boxes: list[Tensor | None] = [whole_boxes(detection["boxes"].cpu(), height, width) for detection in detected]
        segmented = self.sam(images, Hints(hints.texts, boxes))
        strongest = torch.stack(
            [detection["scores"].max().cpu() if len(detection["scores"]) else torch.zeros(()) for detection in detected]
        )
        return MadeMasks(segmented.mask, segmented.confidence * strongest)


class SemanticMaker(_Maker):
    """A network that gives every pixel one of its classes: the class that the text names."""

    takes = needs = frozenset({"text"})

    def __init__(self, package: Any, model: str, *, device: torch.device) -> None:
        super().__init__(package, model, "AutoModelForSemanticSegmentation", device=device)
        self.labels = {str(name).casefold(): int(number) for number, name in self.network.config.id2label.items()}

    def _masks(self, images: Tensor, hints: Hints) -> MadeMasks:
        numbers = [self._number(text) for text in self._texts(hints)]
        outputs = self.network(**self._to_device(self.processor(images=_pictures(images), return_tensors="pt")))
        if not hasattr(outputs, "logits"):
            raise MaskMakingError(f"{self.name}: expected logits of every pixel, got {type(outputs).__name__}")
        shares = _resized(outputs.logits, images).softmax(1)
        mask = shares[torch.arange(len(images)), torch.tensor(numbers, device=shares.device)]
        return MadeMasks(mask, certainty(mask))

    def _number(self, text: str) -> int:
        if text.casefold() not in self.labels:
            raise MaskMakingError(
                f"{self.name}: expected one of its classes ({first_few(self.labels, 30)}), got {text!r}"
            )
        return self.labels[text.casefold()]


def _resized(planes: Tensor, images: Tensor) -> Tensor:
    return interpolate(planes.float(), images.shape[2:], mode="bilinear", align_corners=False)


def _joined(masks: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Everything that one of the masks (K, H, W) holds."""
    planes = masks if isinstance(masks, Tensor) else torch.stack(list(masks)) if len(masks) else torch.zeros(0, *size)
    return planes.float().cpu().amax(0) if len(planes) else torch.zeros(size)
