"""Models by name: ``timm:resnet50``, ``torchvision:vit_b_16``, ``package.module:attribute``, and their checkpoints."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from torch_bgdebias._optional import require
from torch_bgdebias.checkpoints import Checkpoint, read_checkpoint
from torch_bgdebias.class_names import names_of_outputs
from torch_bgdebias.names import INTERPOLATIONS
from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["LoadedModel", "imported", "load_model"]


class LoadedModel(NamedTuple):
    """A model, and what is known of it.

    Attributes:
        model: in training mode, on the CPU.
        preprocessing: what it wants of its images; its fields are ``None`` if unknown.
        classes: names of its outputs, ``None`` if unknown.
    """

    model: nn.Module
    preprocessing: Preprocessing = Preprocessing()
    classes: tuple[str, ...] | None = None


def load_model(
    name: str,
    *,
    num_classes: int | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    channels: int | None = None,
) -> LoadedModel:
    """Make the model and load its weights.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, or ``package.module:attribute``, a module or what makes one.
        num_classes: outputs of a timm or torchvision model; when ``None`` as many as the checkpoint has, else its own
            default.
        checkpoint: a state dict, or a training program's file that holds one. What ``bgdebias train`` wrote also says
            which images the network wants and what its classes are called.
        pretrained: the weights that timm or torchvision publish (downloaded by them); a checkpoint takes their place.
        channels: of the images, for timm's models; 3 when ``None``.

    Raises:
        ValueError: no such model, or a checkpoint that does not fit, saying which keys.
        ImportError: the module cannot be imported. FileNotFoundError: no such checkpoint.
    """
    family, _, model_name = name.partition(":")
    if not model_name:
        hint = (
            "; a file holds weights, and is a checkpoint of one of these" if Path(name).is_file() else _families(name)
        )
        raise ValueError(f"model: expected timm:NAME, torchvision:NAME or package.module:attribute, got {name!r}{hint}")
    if family not in ("timm", "torchvision"):
        if pretrained:
            raise ValueError(f"pretrained: expected a timm: or torchvision: model, got {name!r}")
        loaded = _imported(family, model_name)
        return loaded if checkpoint is None else _with_checkpoint(loaded, read_checkpoint(checkpoint))
    published = pretrained and checkpoint is None
    make = partial(_timm if family == "timm" else _torchvision, model_name, pretrained=published, channels=channels)
    loaded = make(num_classes)
    if checkpoint is None:
        return loaded
    content = read_checkpoint(checkpoint)
    if num_classes is None:
        outputs = content.outputs_beside(loaded.model)
        loaded = loaded if outputs is None else make(outputs)
    return _with_checkpoint(loaded, content)


def _families(name: str) -> str:
    """Which of the two packages have a model of that name."""
    known: dict[str, list[str]] = {}
    for family, module in (("torchvision", "torchvision.models"), ("timm", "timm")):
        with contextlib.suppress(ImportError):
            known[family] = importlib.import_module(module).list_models()
    having = [f"{family}:{name}" for family, names in known.items() if name in names]
    return f"; did you mean {' or '.join(having)}?" if having else ""


def _with_checkpoint(loaded: LoadedModel, content: Checkpoint) -> LoadedModel:
    content.load_into(loaded.model)
    return LoadedModel(loaded.model, content.preprocessing or loaded.preprocessing, content.classes or loaded.classes)


def _timm(name: str, num_classes: int | None, *, pretrained: bool, channels: int | None) -> LoadedModel:
    timm: Any = require("timm", purpose=f"timm:{name}")
    if not timm.is_model(name):
        raise ValueError(f"model: timm has no {name!r}{_near(name, timm.list_models())}")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if channels is not None:
        options["in_chans"] = channels
    model = timm.create_model(name, pretrained=pretrained, **options)
    return LoadedModel(model, _timm_preprocessing(model, name).for_channels(channels))


def _timm_preprocessing(model: nn.Module, name: str) -> Preprocessing:
    """The preprocessing of timm's own data config, which also knows of models that were made for another size."""
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=model)
    _, height, width = config["input_size"]
    return Preprocessing(
        (height, width),
        config["mean"],
        config["std"],
        source=f"timm's data config of {name}",
        interpolation=_known_interpolation(config["interpolation"]),
        crop=config["crop_pct"],
    )


def _torchvision(name: str, num_classes: int | None, *, pretrained: bool, channels: int | None) -> LoadedModel:
    models: Any = require("torchvision.models", purpose=f"torchvision:{name}")
    if name not in (names := models.list_models(module=models)):
        raise ValueError(f"model: torchvision has no classifier {name!r}{_near(name, names)}")
    if pretrained and num_classes is not None:
        raise ValueError("num_classes: expected none with torchvision's pretrained weights, whose classes are fixed")
    if channels not in (None, 3):
        raise ValueError(f"channels: expected 3 with torchvision's models, got {channels}; timm's take any number")
    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    model = models.get_model(name, weights=weights if pretrained else None, **options)
    classes = tuple(weights.meta["categories"]) if pretrained else None
    return LoadedModel(model, _torchvision_preprocessing(model, weights), classes)


def _torchvision_preprocessing(model: nn.Module, weights: Any) -> Preprocessing:
    """The preprocessing of the published weights, for a network without them too: there is no other source.

    A vision transformer is made for one size, which for published weights may be another than for none.
    """
    transform = weights.transforms()
    size = getattr(model, "image_size", None)
    if not isinstance(size, int):
        size = int(transform.crop_size[-1])
    return Preprocessing(
        size,
        transform.mean,
        transform.std,
        source=f"the transform of torchvision's {weights}",
        interpolation=_known_interpolation(transform.interpolation.value),
        crop=min(1.0, transform.crop_size[-1] / transform.resize_size[-1]),
    )


def _known_interpolation(name: str) -> str:
    """The nearest one that this package resizes with: Lanczos and the like are bicubic's kin, random ones are two."""
    return name if name in INTERPOLATIONS else "bilinear" if name == "random" else "bicubic"


def imported(module: str, *, purpose: str) -> Any:
    """A module by its name, looked for in the current folder too, where a console script does not look by itself.

    Args:
        module: as in an import statement.
        purpose: who names it, by which the message begins.

    Raises:
        ImportError: it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose}: cannot import {module}: {error}", name=error.name) from error


def _imported(module: str, attribute: str) -> LoadedModel:
    value = imported(module, purpose="model")
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [n for n in vars(value) if not n.startswith("_")] if hasattr(value, "__dict__") else []
            raise ValueError(f"model: {module} has no {attribute!r}{_near(part, names)}")
        value = getattr(value, part)
    if not isinstance(value, nn.Module) and callable(value):
        try:
            value = value()
        except TypeError as error:
            hint = "name something that can be called without arguments"
            raise ValueError(f"model: {module}:{attribute}() failed: {error}; {hint}") from error
    if not isinstance(value, nn.Module):
        raise ValueError(f"model: {module}:{attribute} gave a {type(value).__name__}, expected a torch.nn.Module")
    known = names_of_outputs(value)
    return LoadedModel(value, classes=None if known is None else known[1])


def _near(name: str, names: list[str]) -> str:
    close_matches = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    return f"; near names: {', '.join(close_matches)}" if close_matches else ""
