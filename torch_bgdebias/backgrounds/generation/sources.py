"""Generators of backgrounds: text-to-image pipelines of diffusers, uniform noise, or any function."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from torch_bgdebias._optional import require
from torch_bgdebias.checks import describe

__all__ = ["BACKGROUND_PROMPTS", "PIPELINES", "PictureSource", "TextToImage", "uniform_noise", "versions"]

_DEVOID = "devoid of objects, creatures, vehicles"
#: prompts by category, after arXiv 2504.08602 (which names the kinds of scene and the words of absence)
BACKGROUND_PROMPTS: dict[str, str] = {
    "cloudscape": f"a photo of a cloudscape, {_DEVOID}",
    "space": f"a picture of outer space with stars and nebulae, {_DEVOID}",
    "jungle": f"a photo of a dense jungle, {_DEVOID}",
    "desert": f"a photo of a desert landscape with sand dunes, {_DEVOID}",
    "arctic": f"a photo of an arctic landscape with ice and snow, {_DEVOID}",
    "volcanic": f"a photo of a volcanic landscape with lava and rock, {_DEVOID}",
    "ocean": f"a photo of the open ocean, {_DEVOID}",
    "abstract": f"an abstract colourful pattern, {_DEVOID}",
}
#: short names of pipelines
PIPELINES = {"wuerstchen": "warp-ai/wuerstchen"}


@runtime_checkable
class PictureSource(Protocol):
    """A source of pictures: one per (prompt, seed), the same for the same pair in any batch."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Pictures (B, 3, H, W), uint8 or float in [0, 1]."""
        ...


def uniform_noise(prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Pixels with independent uniform values in 0 ... 255; prompts are ignored."""
    generator = torch.Generator()
    shape = (3, *size)
    pictures = [torch.randint(256, shape, generator=generator.manual_seed(s), dtype=torch.uint8) for s in seeds]
    return torch.stack(pictures) if pictures else torch.empty(0, *shape, dtype=torch.uint8)


class TextToImage:
    """A text-to-image pipeline of diffusers as a source of pictures.

    Args:
        pipeline: a name on the Hugging Face hub, a folder that ``save_pretrained`` wrote, a short name out of
            ``PIPELINES``, or a pipeline that is loaded already (used as it is, where it is).
        device: where to run; a GPU where there is one by default.
        dtype: of the weights; float16 on a GPU and float32 elsewhere by default.
        negative_prompt: what must not be seen, for pipelines that take one.
        revision: of the weights on the hub.
        options: passed to each call of the pipeline (``num_inference_steps``, ``guidance_scale``, ...).

    Raises:
        ImportError: diffusers or transformers is not installed.
        OSError: the pipeline cannot be loaded.
        ValueError: an option that the pipeline does not take.
    """

    def __init__(
        self,
        pipeline: Any = "wuerstchen",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        negative_prompt: str | None = None,
        revision: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(pipeline, (str, os.PathLike)):
            device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
            name = PIPELINES.get(str(pipeline), str(pipeline))
            self.pipeline = _load(name, dtype, revision).to(device)
            self.pipeline.set_progress_bar_config(disable=True)
        else:
            if not callable(pipeline) or not hasattr(pipeline, "config"):
                raise TypeError(f"source: expected a diffusers pipeline, got {describe(pipeline)}")
            name = str(getattr(pipeline.config, "_name_or_path", "") or type(pipeline).__name__)
            self.pipeline = pipeline
        accepted = inspect.signature(self.pipeline.__call__).parameters
        self.options = dict(options or {})
        if negative_prompt is not None:
            self.options["negative_prompt"] = negative_prompt
        unknown = [option for option in self.options if option not in accepted]
        if unknown or "prompt" not in accepted:
            kind = type(self.pipeline).__name__
            accepted_names = ", ".join(option for option in accepted if option != "kwargs")
            raise ValueError(f"source: {kind} takes no {', '.join(unknown) or 'prompt'}; it takes {accepted_names}")
        self._sized = {"height", "width"} <= set(accepted)
        self.name = f"{type(self.pipeline).__name__}:{name}" + (f"@{revision}" if revision else "")

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int] | None) -> Tensor:
        """Pictures (B, 3, H, W) uint8 in the size that the pipeline made of ``size`` (``None``: its own).

        Noise comes from one CPU generator a picture, so a picture does not depend on its neighbours in the batch, and
        hardly on the device. A picture that the pipeline's safety checker blackened comes back black.

        Raises:
            ValueError: a size that the pipeline cannot make, values that are not finite (half precision overflowed), or
                another number of pictures.
        """
        options = dict(self.options)
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(prompts)
        if size is not None and self._sized:
            options |= {"height": size[0], "width": size[1]}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        try:
            output = self.pipeline(prompt=list(prompts), generator=generators, output_type="np", **options)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # tensors that do not fit: Wuerstchen takes multiples of 128, others of 8
            raise ValueError(
                f"source: {self.name} failed at size {size}, maybe not one it can make: {error}"
            ) from error
        images = torch.as_tensor(output.images).float()
        if images.ndim != 4 or len(images) != len(prompts) or images.shape[3] != 3:
            raise ValueError(f"source: expected ({len(prompts)}, H, W, 3) from {self.name}, got {describe(images)}")
        if not bool(torch.isfinite(images).all()):
            raise ValueError(f"source: {self.name} gave pictures that are not finite; try dtype=torch.float32")
        return images.permute(0, 3, 1, 2).clamp(0, 1).mul(255).round().to(torch.uint8)


def versions(source: Callable[..., Tensor]) -> dict[str, str]:
    """Versions of the packages that a picture depends on."""
    from torch_bgdebias._version import __version__

    packages = {"torch_bgdebias": __version__, "torch": str(torch.__version__)}
    if isinstance(source, TextToImage):
        packages |= {name: importlib.metadata.version(name) for name in ("diffusers", "transformers")}
    return packages


def _load(name: str, dtype: torch.dtype, revision: str | None) -> Any:
    diffusers = require("diffusers", purpose="text-to-image generation")
    require("transformers", purpose="text-to-image generation")
    options = _dtype_argument(dtype)
    location: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        config = diffusers.DiffusionPipeline.load_config(name, **location)
        kind = getattr(diffusers, config["_class_name"], None)
        if kind is not None and ".deprecated." in kind.__module__:
            return _from_parts(kind, config, name, dtype, location)
        try:
            return diffusers.AutoPipelineForText2Image.from_pretrained(name, **options, **location)
        except ValueError:  # a class that diffusers does not list as text-to-image: its own class loads it
            return diffusers.DiffusionPipeline.from_pretrained(name, **options, **location)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        expected = "the name of a text-to-image pipeline on the hub (downloaded once) or a folder of save_pretrained"
        raise OSError(f"source: cannot load {name!r}, expected {expected}: {error}") from error


def _from_parts(kind: Any, config: Mapping[str, Any], name: str, dtype: torch.dtype, location: Any) -> Any:
    """A pipeline made of its parts.

    diffusers 0.42 has moved Wuerstchen to its deprecated pipelines, whose classes ``from_pretrained`` does not find any
    more, neither by the names in the published model_index.json nor by those that ``save_pretrained`` writes.
    """
    diffusers = importlib.import_module("diffusers")
    parts = _parts(kind, config, name, dtype, location)
    if config["_class_name"] == "WuerstchenDecoderPipeline":  # published in two halves
        prior = f"{name}-prior"
        prior_config = diffusers.DiffusionPipeline.load_config(prior)
        parts.pop("latent_dim_scale", None)
        prior_parts = _parts(getattr(diffusers, prior_config["_class_name"]), prior_config, prior, dtype, {})
        halves = {f"prior_{part}": prior_parts[part] for part in ("tokenizer", "text_encoder", "prior", "scheduler")}
        return diffusers.WuerstchenCombinedPipeline(**parts, **halves)
    return kind(**parts)


def _dtype_argument(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument of ``from_pretrained`` for the weights' dtype, which diffusers has renamed."""
    version = tuple(int(part) for part in importlib.import_module("diffusers").__version__.split(".")[:2])
    return {"torch_dtype" if version < (0, 42) else "dtype": dtype}


def _parts(kind: Any, config: Mapping[str, Any], name: str, dtype: torch.dtype, location: Any) -> dict[str, Any]:
    """The arguments of a pipeline's class: its components, loaded, and its settings."""
    package = kind.__module__.rpartition(".")[0]
    parameters = inspect.signature(kind.__init__).parameters
    parts: dict[str, Any] = {}
    for part, entry in config.items():
        if part not in parameters:
            continue
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2):
            parts[part] = entry
            continue
        homes = [importlib.import_module(home) for home in (package, "diffusers", "transformers")]
        component = next((getattr(home, str(entry[1])) for home in homes if hasattr(home, str(entry[1]))), None)
        if component is None:
            raise ValueError(f"{part}: no class {entry[1]} in {package}, diffusers or transformers")
        module = isinstance(component, type) and issubclass(component, torch.nn.Module)
        typed = _dtype_argument(dtype) if module and component.__module__.startswith("diffusers.") else {}
        loaded = component.from_pretrained(name, subfolder=part, **typed, **location)
        parts[part] = loaded.to(dtype).eval() if module and not typed else loaded
    return parts
