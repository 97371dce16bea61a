"""``OnnxMaker``: a network of salient objects as an ONNX file; ``RembgMaker``: the same by rembg's names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from torch_bgdebias._optional import require
from torch_bgdebias.checks import check_mean_std, check_size, describe
from torch_bgdebias.masks.making.licences import Licence, known_licence
from torch_bgdebias.masks.making.protocol import Hints, MadeMasks, MaskMakingError, certainty
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["OnnxMaker", "RembgMaker"]

#: by a part of the file's name, what is subtracted from pixels in [0, 1] and what they are divided by
_UNITS = (
    ("isnet", (0.5,), (1.0,)),
    ("rmbg", (0.5,), (1.0,)),
    ("u2net", IMAGENET_MEAN, IMAGENET_STD),
    ("silueta", IMAGENET_MEAN, IMAGENET_STD),
    ("birefnet", IMAGENET_MEAN, IMAGENET_STD),
)

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxMaker:
    """A network from an ONNX file whose input is an image and whose first output of the input's kind is one plane.

    Images are resized to the file's own size (``size`` where it leaves that open), normalised, and the plane is resized
    back. A sigmoid is taken where the network, tried on a few pictures, gives values outside of [0, 1].

    Args:
        file: the ONNX file.
        mean: what is subtracted from pixels in [0, 1]; known by the file's name for IS-Net, U2-Net, BiRefNet, RMBG.
        std: per channel; required with ``mean``.
        size: (H, W), for files that take any.
        device: ``cuda`` where onnxruntime has it.

    Raises:
        FileNotFoundError: no such file. ImportError: onnxruntime is not there.
        ValueError: no mean and std, or a network of another kind.
    """

    takes = needs = frozenset[str]()

    def __init__(
        self,
        file: Path,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"--with onnx:{file}: there is no such file")
        runtime: Any = require("onnxruntime", purpose=f"--with onnx:{file.name}")
        self.licence = Licence("unknown", f"see where {file.name} comes from")
        units = check_mean_std(mean, std, channels=3)
        self.units = units or _units_by_name(file)
        # masks of other units are another maker's
        self.name = f"onnx:{file.name}" + (f" (mean {_listed(units[0])}, std {_listed(units[1])})" if units else "")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        preferred = ["CUDAExecutionProvider"] if device is not None and device.type == "cuda" else []
        providers = [name for name in [*preferred, "CPUExecutionProvider"] if name in runtime.get_available_providers()]
        try:
            self.session = runtime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # onnxruntime has an exception of its own for each way to fail
            raise ValueError(f"--with onnx:{file}: cannot be loaded: {error}") from error
        self.batch, self.size = self._input(check_size(size))
        self.output = self._output()
        self._logits: bool | None = None

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        scaled = interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(unit).view(1, -1, 1, 1) for unit in self.units)
        plane = self._run(((scaled - mean) / std).numpy())
        if self._logits is None:
            trials = torch.stack([torch.zeros(3, *self.size), torch.ones(3, *self.size)])
            outputs = self._run(((trials - mean) / std).numpy())
            self._logits = bool(min(plane.min(), outputs.min()) < -1e-3 or max(plane.max(), outputs.max()) > 1 + 1e-3)
        plane = torch.sigmoid(plane) if self._logits else plane
        mask = interpolate(plane, images.shape[2:], mode="bilinear", antialias=True, align_corners=False)[:, 0]
        return MadeMasks(mask, certainty(mask))

    def _run(self, pixels: Any) -> Tensor:
        count, step = len(pixels), self.batch or len(pixels)
        if len(pixels) % step:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], step - len(pixels) % step, axis=0)])
        name = self.session.get_inputs()[0].name
        pixels = pixels.astype(self.type)
        try:
            starts = range(0, len(pixels), step)
            parts = [self.session.run([self.output], {name: pixels[i : i + step]})[0] for i in starts]
        except Exception as error:  # as above
            raise MaskMakingError(f"{self.name}: {str(error).splitlines()[0]}") from error
        return torch.from_numpy(np.concatenate(parts)[:count]).float()

    def _input(self, size: tuple[int, int] | None) -> tuple[int | None, tuple[int, int]]:
        """The batch size that the file fixes, and the size of its images."""
        inputs = self.session.get_inputs()
        shape = list(inputs[0].shape)
        if len(inputs) != 1 or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            inputs_text = ", ".join(f"{model_input.name} {model_input.shape}" for model_input in inputs)
            raise MaskMakingError(f"{self.name}: expected one input (B, 3, H, W), got {inputs_text}")
        if inputs[0].type not in _TYPES:
            raise MaskMakingError(f"{self.name}: expected an input of {' or '.join(_TYPES)}, got {inputs[0].type}")
        self.type = _TYPES[inputs[0].type]
        fixed_size = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None
        if fixed_size is None and size is None:
            raise ValueError(f"{self.name}: takes images of any size; say with --size which it was trained on")
        if fixed_size is not None and size not in (None, fixed_size):
            raise ValueError(f"--size: expected {fixed_size}, which {self.name} takes alone, got {size}")
        input_size = fixed_size or size
        assert input_size is not None
        return (shape[0] if isinstance(shape[0], int) else None), input_size

    def _output(self) -> str:
        """The first output that may be a plane (B, 1, H, W)."""
        outputs = self.session.get_outputs()
        for model_output in outputs:
            if len(model_output.shape) == 4 and (
                model_output.shape[1] == 1 or not isinstance(model_output.shape[1], int)
            ):
                return str(model_output.name)
        outputs_text = ", ".join(f"{model_output.name} {model_output.shape}" for model_output in outputs[:4])
        raise MaskMakingError(f"{self.name}: expected an output (B, 1, H, W), got {outputs_text}")


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _units_by_name(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for part, mean, std in _UNITS:
        if part in file.name.lower():
            return mean, std
    raise ValueError(
        f"--with onnx:{file.name}: expected --mean and --std, which a file does not say: what is subtracted from "
        "pixels in [0, 1] and what they are divided by (IS-Net: --mean 0.5 --std 1)"
    )


class RembgMaker:
    """One of rembg's models; its weights are downloaded by rembg on first use.

    Args:
        model: rembg's name, ``u2net`` by default; ``u2net_custom``, ``dis_custom`` and ``ben_custom`` take a file.
        file: weights of a custom one.

    Raises:
        ImportError: rembg is not there. ValueError: no such model. FileNotFoundError: no such file.
    """

    takes = needs = frozenset[str]()

    def __init__(self, model: str = "u2net", *, file: Path | None = None) -> None:
        rembg: Any = require("rembg", purpose=f"--with rembg:{model}")
        self.name, self.licence = f"rembg:{model}", known_licence("rembg", model)
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"--with rembg:{model}: there is no file {file}")
        if model.endswith("_custom") != (file is not None):
            raise ValueError(f"--with rembg:{model}: expected --checkpoint FILE with u2net_custom and the like alone")
        options = {} if file is None else {"model_path": str(file)}
        try:
            self.session = rembg.new_session(model, providers=["CPUExecutionProvider"], **options)
        except ValueError as error:
            raise ValueError(f"--with rembg:{model}: {error}") from error

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        masks = []
        for image in images:
            pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
            planes = self.session.predict(Image.fromarray(pixels))
            if not planes:
                raise MaskMakingError(f"{self.name}: expected a mask, got none")
            joined = np.max([np.asarray(plane.convert("L")) for plane in planes], axis=0)
            masks.append(torch.from_numpy(joined.astype(np.float32) / 255))
        if len({tuple(mask.shape) for mask in masks}) > 1:
            raise MaskMakingError(f"{self.name}: expected masks of the images' size, got {describe(masks[0])}")
        mask = torch.stack(masks)
        return MadeMasks(mask, certainty(mask))
