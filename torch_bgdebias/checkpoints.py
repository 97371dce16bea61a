"""Reads checkpoints of many training programs: their state dict, and the notes that ``bgdebias train`` adds."""

from __future__ import annotations

import importlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.class_names import names_within, plain_name
from torch_bgdebias.files import first_few
from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["NOTES", "Checkpoint", "notes_for_checkpoint", "read_checkpoint"]

#: where training programs keep the state dict in what they save
_PLACES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
#: what training programs save beside it, which may hold tensors too
_NOT_THE_MODEL = ("optim", "sched", "scaler", "callback", "loop", "loss", "hyper")
#: endings of checkpoints, for messages
_ENDINGS = (".ckpt", ".pt", ".pth", ".safetensors")
#: put before every name by data parallel and ``torch.compile``
_WRAPPERS = ("module.", "_orig_mod.")
#: the key of a checkpoint under which this package notes what the network wants and what its classes are called
NOTES = "torch_bgdebias"


def notes_for_checkpoint(preprocessing: Preprocessing | None, classes: list[str] | None) -> dict[str, Any]:
    """What to save under `NOTES`, of plain types, so that ``torch.load(weights_only=True)`` reads it."""
    return {
        "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        "classes": None if classes is None else [str(name) for name in classes],
    }


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: its file.
        state: name -> tensor, without the prefixes of data parallel and ``torch.compile``.
        preprocessing: what the network was trained with, where the checkpoint says so.
        classes: what its outputs are called, where the checkpoint, or hyperparameters in it, say so.
    """

    path: Path
    state: dict[str, Tensor] = field(repr=False)
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None

    def load_into(self, model: nn.Module) -> None:
        """Load every key; prefixes of modules around the model are taken off where the rest then fits exactly.

        Raises:
            ValueError: it does not fit, with the keys that are missing, too many or of another shape.
        """
        expected = model.state_dict()
        state = self._renamed_to_match(expected)
        # what counts a batch normalisation's steps is not in old checkpoints, and plays no part in evaluation
        missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
        unexpected = [key for key in state if key not in expected]
        other_shape = [
            f"{key} is {tuple(state[key].shape)} in the checkpoint and {tuple(expected[key].shape)} in the model"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ]
        parts = [
            _problem_text("missing", missing),
            _problem_text("unexpected", unexpected),
            _problem_text("of another shape:", other_shape),
        ]
        if any(parts):
            hint = "; another number of classes?" if other_shape and not (missing or unexpected) else ""
            problems = "; ".join(part for part in parts if part)
            raise ValueError(f"checkpoint: {self.path} does not fit {type(model).__name__}: {problems}{hint}")
        try:
            model.load_state_dict({**expected, **state})
        except RuntimeError as error:  # a dtype that the model's cannot take
            raise ValueError(f"checkpoint: {self.path} does not fit {type(model).__name__}: {error}") from error

    def outputs_beside(self, model: nn.Module) -> int | None:
        """Outputs of the checkpoint's network, where it differs from ``model`` in nothing but their number."""
        expected = model.state_dict()
        state = self._renamed_to_match(expected)
        pairs = {
            (len(expected[key]), len(state[key]))
            for key in expected
            if key in state and expected[key].ndim and state[key].shape != expected[key].shape
            if state[key].shape[1:] == expected[key].shape[1:]
        }
        return pairs.pop()[1] if len(pairs) == 1 else None

    def _renamed_to_match(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state without what modules around the model, a LightningModule or others, put before its own names."""
        first = next(iter(expected), "")
        fitting: dict[str, dict[str, Tensor]] = {}
        for prefix in sorted({key.removesuffix(first) for key in self.state if key.endswith(f".{first}")}):
            inner = {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}
            if set(inner) == set(expected):
                fitting[prefix] = inner
        if not fitting:
            return self.state
        best, *others = fitting
        if any(_weights_differ(fitting[best], fitting[other]) for other in others):
            raise ValueError(
                f"checkpoint: {self.path} holds several networks of this kind, {first_few(fitting)}: save one alone, "
                f"{{name.removeprefix({best!r}): x for name, x in state.items() if name.startswith({best!r})}}"
            )
        return fitting[best]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of ``torch.save`` or safetensors.

    Raises:
        FileNotFoundError: no such file. ValueError: no state dict in it or several, or more than tensors and plain
            values.
    """
    content = _read(path)
    state = {_unwrapped(key): value for key, value in _state_of(content, path).items()}
    state.pop("n_averaged", None)  # how many a torch.optim.swa_utils.AveragedModel is the mean of
    notes = content.get(NOTES) if isinstance(content, Mapping) else None
    if not isinstance(notes, Mapping):
        return Checkpoint(path, state, classes=_classes_within(content, path))
    noted, classes = notes.get("preprocessing"), notes.get("classes")
    try:
        preprocessing = Preprocessing.from_dict({**noted, "source": f"the checkpoint {path.name}"}) if noted else None
        return Checkpoint(path, state, preprocessing, tuple(map(str, classes)) if classes else None)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"checkpoint: {path}: {NOTES}: {error}") from error


def _classes_within(content: Any, path: Path) -> tuple[str, ...] | None:
    """What a training program noted of its outputs' names, beside the weights or among its hyperparameters."""
    orders = names_within(content, 3) if isinstance(content, Mapping) else {}
    if len({tuple(map(plain_name, order)) for order in orders.values()}) > 1:
        warnings.warn(
            f"checkpoint: {path} calls its outputs by {first_few(orders)}, which disagree: none of them is followed; "
            "say with --labels which output each class is",
            stacklevel=4,
        )
        return None
    return next(iter(orders.values()), None)


def _problem_text(problem: str, keys: list[str]) -> str:
    return f"{len(keys)} {problem} ({first_few(keys, 4)})" if keys else ""


def _read(path: Path) -> Any:
    if path.is_dir():
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.suffix in _ENDINGS)
        contents = f"it holds {first_few(files)}: name one of them" if files else "and there is no checkpoint in it"
        raise FileNotFoundError(f"checkpoint: expected a file, got the folder {path}; {contents}")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no such file: {path}")
    if advice := _advice_on_networks(path):
        raise ValueError(f"checkpoint: {path} holds a network with its code, not the weights alone; {advice}")
    try:
        if path.suffix == ".safetensors":
            return importlib.import_module("safetensors.torch").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise ValueError(f"checkpoint: {path} is no file of torch.save or safetensors") from error
        refusal = "it holds more than tensors, which is not loaded because that could run code"
        raise ValueError(f"checkpoint: {path}: {refusal}; save model.state_dict()") from error
    except Exception as error:  # torch, zipfile, pickle and safetensors raise many kinds for a damaged file
        is_weights_file = path.suffix == ".safetensors" or _is_pickle(path)
        reason = (str(error) or type(error).__name__) if is_weights_file else "no file of torch.save or safetensors"
        raise ValueError(f"checkpoint: {path} cannot be read: {reason}") from error


def _advice_on_networks(path: Path) -> str:
    """Advice on a file of TorchScript or of an exported program; empty for any other."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # no archive, or a damaged one, which is read as a checkpoint and then named
        return ""
    if any("/code/" in name for name in names):
        return f'name as model a function of yours, package:load, that returns torch.jit.load("{path}")'
    if any("/models/" in name for name in names):
        return (
            "an exported program stays in the mode that it was exported in: save the state_dict() of the module that "
            "it was exported from"
        )
    return ""


def _is_pickle(path: Path) -> bool:
    """Whether the file begins as ``torch.save`` writes: a zip archive, or a pickle of protocol 2 or later."""
    with path.open("rb") as file:
        start = file.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    candidates = dict(_state_dicts(content, ""))
    if not candidates:
        contents = first_few(content, 8) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"checkpoint: {path}: expected a state dict, alone or under {', '.join(_PLACES)}; it holds {contents}"
        )
    ranks = {path_in_file: min(map(_place_rank, path_in_file.split("."))) for path_in_file in candidates}
    best = min(ranks.values())
    first, *others = [path_in_file for path_in_file, rank in ranks.items() if rank == best]
    if others:
        raise ValueError(f"checkpoint: {path} holds several state dicts, {first_few((first, *others))}: save one alone")
    passed_over = [path_in_file for path_in_file in candidates if path_in_file != first]
    if passed_over:
        warnings.warn(
            f"checkpoint: {path} holds {first} and {first_few(passed_over)}: {first} is loaded; to have another, save "
            "it alone",
            stacklevel=4,
        )
    return candidates[first]


def _state_dicts(content: Any, path_in_file: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors, with the keys that lead to it; numbers and texts beside them are left out."""
    if not isinstance(content, Mapping):
        return
    inner = {str(key): value for key, value in content.items() if isinstance(value, Mapping) and key != NOTES}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and not inner:
        yield path_in_file, tensors
    for key, value in inner.items():
        if not any(word in key.lower() for word in _NOT_THE_MODEL):
            yield from _state_dicts(value, f"{path_in_file}.{key}".lstrip("."))


def _place_rank(key: str) -> int:
    return _PLACES.index(key) if key in _PLACES else len(_PLACES)


def _weights_differ(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two networks of the same names have other weights."""
    return any(value.shape != second[key].shape or not torch.equal(value, second[key]) for key, value in first.items())


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.split(".", 1)[1]
    return key
