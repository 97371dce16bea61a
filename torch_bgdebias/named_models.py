"""Models by name: ``timm:resnet50``, ``torchvision:vit_b_16``, ``package.module:attribute``, and their checkpoints."""

from __future__ import annotations

import difflib
import importlib
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torch_bgdebias.files import first_few
from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["LoadedModel", "load_checkpoint", "load_model"]

#: where training programs keep the state dict in what they save
_PLACES = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
#: put before every name by data parallel and ``torch.compile``
_WRAPPERS = ("module.", "_orig_mod.")


class LoadedModel(NamedTuple):
    """A model, and what is known of the images it wants (fields are ``None`` where nobody says)."""

    model: nn.Module
    preprocessing: Preprocessing = Preprocessing()


def load_model(
    name: str, *, num_classes: int | None = None, checkpoint: Path | None = None, pretrained: bool = False
) -> LoadedModel:
    """Make the model and load its weights.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, or ``package.module:attribute``, a module or what makes one.
        num_classes: outputs of a timm or torchvision model, its own default when ``None``.
        checkpoint: a state dict, or a training program's file that holds one.
        pretrained: the weights that timm or torchvision publish (downloaded by them).

    Raises:
        ValueError: no such model, or a checkpoint that does not fit, saying which keys.
        ImportError: the module cannot be imported. FileNotFoundError: no such checkpoint.
    """
    family, _, rest = name.partition(":")
    if not rest:
        raise ValueError(f"model: expected timm:NAME, torchvision:NAME or package.module:attribute, got {name!r}")
    make = {"timm": _timm, "torchvision": _torchvision}.get(family)
    if make is None and pretrained:
        raise ValueError(f"pretrained: expected a timm: or torchvision: model, got {name!r}")
    loaded = _imported(family, rest) if make is None else make(rest, num_classes, pretrained)
    if checkpoint is not None:
        load_checkpoint(loaded.model, checkpoint)
    return loaded


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load a checkpoint into a model, every key of it.

    Data parallel's and ``torch.compile``'s prefixes are taken off, and the one that a LightningModule puts before the
    model's own names, where the rest then fits exactly.

    Raises:
        FileNotFoundError: no such file. ValueError: no state dict in it, or one that does not fit.
    """
    found = {_unwrapped(key): value for key, value in _state_of(_read(path), path).items()}
    wanted = model.state_dict()
    for prefix in sorted({key.split(".", 1)[0] + "." for key in found if "." in key}):
        inner = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        if set(inner) == set(wanted):
            found = inner
            break
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    other = [
        f"{key} is {tuple(found[key].shape)} in the checkpoint and {tuple(wanted[key].shape)} in the model"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    parts = [_listed("missing", missing), _listed("unexpected", unexpected), _listed("of another shape:", other)]
    if any(parts):
        hint = "; another number of classes?" if other and not (missing or unexpected) else ""
        told = "; ".join(part for part in parts if part)
        raise ValueError(f"checkpoint: {path} does not fit {type(model).__name__}: {told}{hint}")
    model.load_state_dict(found)


def _listed(what: str, keys: list[str]) -> str:
    return f"{len(keys)} {what} ({first_few(keys, 4)})" if keys else ""


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            return importlib.import_module("safetensors.torch").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise ValueError(f"checkpoint: {path} is no file of torch.save or safetensors") from error
        why = "it holds more than tensors, which is not loaded because that could run code"
        raise ValueError(f"checkpoint: {path}: {why}; save model.state_dict()") from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError) as error:
        known = path.suffix == ".safetensors" or _is_pickle(path)
        told = str(error) if known else "no file of torch.save or safetensors"
        raise ValueError(f"checkpoint: {path} cannot be read: {told}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # not a subclass of anything more telling
            raise
        raise ValueError(f"checkpoint: {path} cannot be read: {error}") from error


def _is_pickle(path: Path) -> bool:
    """Whether the file begins as ``torch.save`` writes: a zip archive, or a pickle of protocol 2 or later."""
    with path.open("rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    for candidate in (content, *(content.get(p) for p in _PLACES if isinstance(content, Mapping))):
        if isinstance(candidate, Mapping) and candidate:
            tensors = {str(k): v for k, v in candidate.items() if isinstance(v, Tensor)}
            if len(tensors) == len(candidate):
                return tensors
    held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(f"checkpoint: {path}: expected a state dict, alone or under {', '.join(_PLACES)}; it holds {held}")


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.split(".", 1)[1]
    return key


def _timm(name: str, num_classes: int | None, pretrained: bool) -> LoadedModel:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"model: timm has no {name!r}{_near(name, timm.list_models())}")
    model = _made(lambda **kw: timm.create_model(name, pretrained=pretrained, **kw), num_classes)
    return LoadedModel(model, _timm_preprocessing(model, name))


def _timm_preprocessing(model: nn.Module, name: str) -> Preprocessing:
    """What timm's own data config says, which also knows of models that were made for another size."""
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=model)
    _, height, width = config["input_size"]
    return Preprocessing((height, width), config["mean"], config["std"], source=f"timm's data config of {name}")


def _torchvision(name: str, num_classes: int | None, pretrained: bool) -> LoadedModel:
    from torchvision import models

    if name not in (known := models.list_models(module=models)):
        raise ValueError(f"model: torchvision has no classifier {name!r}{_near(name, known)}")
    if pretrained and num_classes is not None:
        raise ValueError("num_classes: expected none with torchvision's pretrained weights, whose classes are fixed")
    weights = models.get_model_weights(name).DEFAULT
    model = _made(lambda **kw: models.get_model(name, weights=weights if pretrained else None, **kw), num_classes)
    return LoadedModel(model, _torchvision_preprocessing(model, weights))


def _torchvision_preprocessing(model: nn.Module, weights: Any) -> Preprocessing:
    """What the published weights' transform does, for a network without them too: nobody else says anything.

    A vision transformer is made for one size, which for published weights may be another than for none.
    """
    transform = weights.transforms()
    size = getattr(model, "image_size", None)
    if not isinstance(size, int):
        size = int(transform.crop_size[-1])
    return Preprocessing(size, transform.mean, transform.std, source=f"the transform of torchvision's {weights}")


def _made(make: Callable[..., nn.Module], num_classes: int | None) -> nn.Module:
    return make() if num_classes is None else make(num_classes=num_classes)


def _imported(module: str, attribute: str) -> LoadedModel:
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not look where it is started
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"model: cannot import {module}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            raise ValueError(f"model: {module} has no {attribute!r}{_near(part, names)}")
        found = getattr(found, part)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except TypeError as error:
            hint = "name something that can be called without arguments"
            raise ValueError(f"model: {module}:{attribute}() failed: {error}; {hint}") from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"model: {module}:{attribute} gave a {type(found).__name__}, expected a torch.nn.Module")
    return LoadedModel(found)


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"; near names: {', '.join(near)}" if near else ""
