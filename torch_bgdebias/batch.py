"""``BatchSpec``: where image, label and mask are in a batch. ``MaskedBatch``: two items that carry masks along."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, serialization
from torch.utils.data import default_collate

from torch_bgdebias.batch_places import Step, inserted_at, removed_at, replaced_at, value_at_step
from torch_bgdebias.checks import plain_tensor

__all__ = ["BatchSpec", "MaskedBatch", "Place", "collate_masked", "value_at"]

#: index, key or attribute; a path of them, as a tuple or with dots; a function of the batch; or None
Place: TypeAlias = "int | str | tuple[int | str, ...] | Callable[[Any], Tensor] | None"

#: what a module that was written without masks does not expect in its batches
_HIDDEN = ("mask", "background_label", "void")
#: where void is unless the specification says otherwise; batches without anything of that name have none
_VOID = "void"
#: under what the type of a named tuple is kept, of which a plain one is left
_NAMED = "named tuple"


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """Where in a batch the images, labels and masks are.

    A place is a tuple index, a dict key or an attribute; a path of them, ``("labelled", 0)`` or ``"input.image"``; or a
    function of the batch, which is only read: ``BatchSpec(label=lambda batch: batch[1].argmax(1))``.

    Args:
        image: where the images (B, C, H, W) are.
        label: where the labels are.
        mask: where the foreground masks (B, 1, H, W) are; ``None`` when the batch has none.
        background_label: where the background's class is; ``None`` when the batch does not say.
        hide_mask: for a LightningModule whose steps and transfer hooks know nothing of masks (``x, y = batch``): the
            callbacks take mask, void and background label out of the batch before the module's own methods get it. A
            tuple or list gets shorter, a dict loses the key.
        void: where the pixels (B, 1, H, W) are that are neither object nor background, bool or in [0, 1]; by default
            what the batch holds under the name ``void``, if anything. ``None`` when the batch has none.

    A batch may be a tuple, named tuple, list, mapping or an object with attributes (dataclass).

    Raises:
        TypeError: a place of another kind, or a mask to hide that is given by a function.

    Example:
        >>> import torch
        >>> spec = BatchSpec(image="pixels", label="y", mask="seg")
        >>> batch = {"pixels": torch.rand(2, 3, 4, 4), "y": torch.tensor([0, 1]), "seg": torch.ones(2, 1, 4, 4)}
        >>> new = spec.replace(batch, image=batch["pixels"] * 0)
        >>> float(spec.image_of(new).sum()), float(spec.image_of(batch).sum()) > 0
        (0.0, True)
    """

    image: Place = 0
    label: Place = 1
    mask: Place = 2
    background_label: Place = None
    hide_mask: bool = dataclasses.field(default=False, kw_only=True)
    void: Place = dataclasses.field(default=_VOID, kw_only=True)

    def __post_init__(self) -> None:
        for field in ("image", "label", "mask", "background_label", "void"):
            _check_place(field, getattr(self, field))
            if self.hide_mask and field in _HIDDEN and callable(getattr(self, field)):
                raise TypeError(
                    f"hide_mask: expected an index, key or path for {field}, got a function, which cannot say what to "
                    "take out of the batch"
                )

    def image_of(self, batch: Any) -> Tensor:
        """The images. Raises a KeyError that lists the batch's contents if they are missing."""
        return self._get(batch, "image")

    def label_of(self, batch: Any) -> Tensor:
        """The labels. Raises a KeyError that lists the batch's contents if they are missing."""
        return self._get(batch, "label")

    def mask_of(self, batch: Any) -> Tensor:
        """The masks. Raises a KeyError that lists the batch's contents if they are missing."""
        return self._get(batch, "mask")

    def background_label_of(self, batch: Any) -> Tensor | None:
        """The backgrounds' classes, or ``None`` if the specification names no place for them."""
        return None if self.background_label is None else self._get(batch, "background_label")

    def void_of(self, batch: Any) -> Tensor | None:
        """Pixels that are neither object nor background, or ``None`` where there are none.

        Raises KeyError where the specification names a place of its own and the batch has nothing there.
        """
        if self.void is None:
            return None
        try:
            value = self._lookup(batch, "void")
        except KeyError:
            if self.void == _VOID:
                return None
            raise
        return None if value is None and self.void == _VOID else self._get(batch, "void")

    def replace(self, batch: Any, **fields: Tensor) -> Any:
        """A shallow copy of ``batch`` of the same type with some fields replaced, named as in this class."""
        for field, value in fields.items():
            self._lookup(batch, field)  # a field that is not there is an error, never an addition
            place = self._place(field)
            if callable(place):
                raise TypeError(f"{field}: expected a place that can be written to, got a function; pass a key or path")
            batch = replaced_at(batch, _steps(batch, place), value)
        return batch

    def absent(self, batch: Any) -> bool:
        """Whether the path to the images leads through ``None``: one of several loaders has run out of batches."""
        if callable(self.image) or self.image is None:
            return False
        value = batch
        for step in _steps(batch, self.image):
            if value is None:
                return True
            try:
                value = value_at_step(value, step)
            except (KeyError, IndexError, TypeError, AttributeError):
                return False
        return value is None

    def without_mask(self, batch: Any) -> tuple[Any, dict[str, Any]]:
        """The batch without its masks, as the module expects it, and the removed values for `with_mask`.

        What is not there stays away: batches of two pass as they are.
        """
        hidden: dict[str, Any] = {}
        for field in self._hidden():
            try:
                hidden[field] = self._lookup(batch, field)
            except KeyError:
                continue
        named = type(batch) if hidden and isinstance(batch, tuple) and hasattr(batch, "_fields") else None
        for field in self._hidden():  # from the back, so that indices stay right
            if field in hidden:
                batch = removed_at(batch, _steps(batch, getattr(self, field)))
        return batch, hidden if named is None else {**hidden, _NAMED: named}

    def with_mask(self, batch: Any, taken: Mapping[str, Any]) -> Any:
        """The batch with the values that `without_mask` removed, at their original places."""
        named: Any = taken.get(_NAMED)
        for field in reversed(self._hidden()):
            if field not in taken:
                continue
            steps = _steps(batch, getattr(self, field))
            if named is not None and isinstance(steps[-1], str) and len(steps) == 1 and steps[0] in named._fields:
                steps = (named._fields.index(steps[0]),)
            batch = inserted_at(batch, steps, taken[field])
        whole = named is not None and isinstance(batch, list | tuple) and len(batch) == len(named._fields)
        return named(*batch) if whole else batch

    def _hidden(self) -> list[str]:
        """Fields to take out, later indices first."""
        fields = [field for field in _HIDDEN if getattr(self, field) is not None and not callable(getattr(self, field))]
        return sorted(fields, key=lambda field: str(_last_step(getattr(self, field))).zfill(9), reverse=True)

    def _place(self, field: str) -> int | str | tuple[Step, ...] | Callable[[Any], Tensor]:
        place: Place = getattr(self, field)
        if place is None:
            raise KeyError(f"batch: BatchSpec has no place for {field!r}; pass BatchSpec({field}=...)")
        return place

    def _get(self, batch: Any, field: str) -> Tensor:
        value = self._lookup(batch, field)
        if not isinstance(value, Tensor):
            where = self._place(field)
            further = isinstance(value, Mapping | Sequence) and isinstance(where, int | str)
            hint = f"; a path leads further in, such as BatchSpec({field}=({where!r}, 0))" if further else ""
            if isinstance(value, Sequence) and all(isinstance(x, Tensor) and x.ndim == 3 for x in value):
                hint = "; these are single images: let the loader's collate_fn stack them to one tensor"
            raise TypeError(f"batch[{where!r}] ({field}): expected a tensor, got {type(value).__name__}{hint}")
        return plain_tensor(value)

    def _lookup(self, batch: Any, field: str) -> Any:
        hint = f"pass BatchSpec({field}=...) to say where it is"
        if field == "mask" and not self.hide_mask:
            hint += ", or BatchSpec(hide_mask=True) where a transfer hook of the module leaves it out"
        return value_at(batch, self._place(field), name=field, hint=hint)


def value_at(
    batch: Any, place: int | str | tuple[Step, ...] | Callable[[Any], Any], *, name: str, hint: str = ""
) -> Any:
    """What is at a place in a batch: an index, a key, an attribute, a path of them or a function of the batch.

    Args:
        batch: what a loader yielded.
        place: where to look.
        name: what is looked for, for the message.
        hint: what to do where it is not there.

    Raises:
        KeyError: it is not there; the message says what the batch holds.
    """
    if callable(place):
        return place(batch)
    value = batch
    for step in _steps(batch, place):
        try:
            value = value_at_step(value, step)
        except (KeyError, IndexError, TypeError, AttributeError):
            then = f"; {hint}" if hint else ""
            raise KeyError(f"batch has no {name} at {place!r}; it holds {_contents_text(value)}{then}") from None
    return value


def _check_place(field: str, place: object) -> None:
    if place is None or callable(place) or (isinstance(place, int | str) and not isinstance(place, bool)):
        return
    if isinstance(place, tuple) and place and all(isinstance(s, int | str) and not isinstance(s, bool) for s in place):
        return
    raise TypeError(
        f"{field}: expected an index, a key, a path such as ('labelled', 0), a function of the batch or None, "
        f"got {place!r}"
    )


def _steps(batch: Any, place: int | str | tuple[Step, ...]) -> tuple[Step, ...]:
    """The place as a path; a name with dots is one where the batch has nothing of this very name."""
    if isinstance(place, tuple):
        return place
    if isinstance(place, str) and "." in place and not (isinstance(batch, Mapping) and place in batch):
        return tuple(int(step) if step.isdecimal() else step for step in place.split("."))
    return (place,)


def _last_step(place: int | str | tuple[Step, ...]) -> Step:
    return place[-1] if isinstance(place, tuple) else place


def _contents_text(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"keys {sorted(map(str, batch))}"
    if isinstance(batch, Sequence):
        return f"{len(batch)} item(s): " + ", ".join(type(item).__name__ for item in batch)
    return f"a {type(batch).__name__}"


@dataclasses.dataclass
class MaskedBatch:
    """Unpacks to image and label, as ``x, y = batch`` expects, and has the mask as an attribute.

    The mask stays with it where batches go: through a loader's workers and pinned memory, to a device, through a
    trainer's change of precision. ``BatchSpec()`` reads it as it is.

    Args:
        image: (B, C, H, W).
        label: the labels, of any kind.
        mask: (B, 1, H, W), 1 = foreground.
        background_label: (B,), where the data has it.
        void: (B, 1, H, W), where the data has pixels that are neither object nor background.

    Example:
        >>> import torch
        >>> batch = MaskedBatch(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.ones(2, 1, 4, 4))
        >>> x, y = batch
        >>> x is batch[0], len(batch), batch.to("cpu").mask.shape
        (True, 2, torch.Size([2, 1, 4, 4]))
    """

    image: Tensor
    label: Any
    mask: Tensor
    background_label: Tensor | None = None
    void: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:
        yield self.image
        yield self.label

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return (self.image, self.label)[index]
        return getattr(self, _name(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, _name(index), value)

    def to(self, *args: Any, **kwargs: Any) -> MaskedBatch:
        """As ``Tensor.to``, of everything that is a tensor."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> MaskedBatch:
        """In pinned memory, as a loader asks for."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> MaskedBatch:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return MaskedBatch(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})


def collate_masked(items: Sequence[Any]) -> MaskedBatch:
    """The loader's ``collate_fn`` for data sets of (image, label, mask), with background label or void if any.

    Args:
        items: tuples of three, of four with the background's label, or ``MaskedVoidItem``.

    Raises:
        ValueError: items of another length.
    """
    if hasattr(items[0], "void"):
        return MaskedBatch(**{name: default_collate([getattr(item, name) for item in items]) for name in _ITEM})
    if len(items[0]) not in (3, 4):
        raise ValueError(
            "collate_masked: expected items (image, label, mask) or (image, label, mask, background label), got "
            f"{len(items[0])} values"
        )
    return MaskedBatch(*default_collate([tuple(item) for item in items]))


#: names of what a `MaskedVoidItem` of ``torch_bgdebias.data`` holds
_ITEM = ("image", "label", "mask", "void")


# a module that has a BatchSpec among its hyperparameters loads from its checkpoint as any other
serialization.add_safe_globals([BatchSpec])


def _name(index: int) -> str:
    names = [field.name for field in dataclasses.fields(MaskedBatch)]
    if index in (-1, -2):  # the last of the two that it unpacks to
        index += 2
    if not 0 <= index < len(names):
        raise IndexError(f"batch index: expected 0 (image) to {len(names) - 1} ({names[-1]}), got {index}")
    return names[index]
