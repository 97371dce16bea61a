"""``resolve``: detects how mask files encode the object, or says what the user has to specify."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from torch_bgdebias.files import first_few
from torch_bgdebias.masks.contents import Colour, MaskContents, voc_palette
from torch_bgdebias.masks.encodings import Label, MaskEncoding, MaskEncodingError
from torch_bgdebias.masks.foreground import foreground_of

__all__ = ["by_alpha", "refusal", "resolve"]

VOC_VOID: Colour = (224, 224, 192)
_BLACK: Colour = (0, 0, 0)
#: share of thin values' pixels that lie between their neighbours where they are shades and no labels
_BETWEEN = 0.8
#: how far beyond labels, as a share of the largest, a sharp resize may go
_BEYOND = 0.25
#: labels up to here are taken for labels even where they form no areas
_SMALL = 63
#: in a channel of transparency
_OPAQUE = 255


def resolve(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    """The encoding of masks of one kind of file that were inspected together.

    Args:
        masks: at least one, all of the same ``MaskContents.kind``; where ``alpha`` is there it is what decides.
        encoding: what the user said, ``MaskEncoding()`` for nothing.

    Returns:
        An encoding with no kind ``"auto"``, ``void`` filled in, and ``white`` where it is needed.

    Raises:
        MaskEncodingError: nothing fits; shows what was found and names the options.
    """
    if encoding.kind == "alpha" or any(by_alpha(mask, encoding) for mask in masks):
        return _resolve_alpha(masks, encoding)
    if masks[0].kind == "colours" or encoding.kind == "colour" or encoding.by_colour:
        return _resolve_colours(masks, encoding)
    if masks[0].palette is not None:
        return _resolve_indices(masks, encoding)
    return _resolve_numbers(masks, encoding)


def by_alpha(mask: MaskContents, encoding: MaskEncoding) -> bool:
    """Whether its channel of transparency says what is object, rather than colours or indices that the user named."""
    if mask.alpha is None or encoding.kind not in ("auto", "alpha"):
        return False
    labels = encoding.by_colour or (mask.palette is not None and encoding.foreground is not None)
    return encoding.kind == "alpha" or not labels


def refusal(masks: Sequence[MaskContents], contents: str, options: str) -> MaskEncodingError:
    """The error that shows a mask, what is in the masks, and what settles it."""
    first = masks[0]
    of = f" and {len(masks) - 1} more" if len(masks) > 1 else ""
    return MaskEncodingError(f"mask {first.path}{of} ({first.mode}): what is object? Found {contents}; {options}")


_LABELS = "say foreground=[...] (and void=[...]) with the labels that are object, or fix the files"
_EITHER = 'say encoding="soft" (grey levels are shares), "binary" (two values) or "index" (labels), or foreground=[...]'
_EITHER_LABELS = (
    'say encoding="index" (0 is background), or foreground=[...] with the indices or colours that are object'
)
_COLOURS = 'say foreground=["#rrggbb", ...] (and void=[...]) with the colours that are object, or encoding="colour"'


def _resolve_indices(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    """Indices into a palette of colours."""
    if masks[0].kind == "palette" and encoding.kind == "auto" and encoding.foreground is None:
        colours = sorted({colour for mask in masks for colour in mask.colours})
        raise refusal(masks, f"a palette without black, with the colours {first_few(colours)}", _EITHER_LABELS)
    if encoding.kind == "soft":
        raise refusal(
            masks, "indices into a palette of colours", f'encoding="soft" needs grey levels; {_EITHER_LABELS}'
        )
    if encoding.kind == "binary":
        return dataclasses.replace(encoding, void=encoding.void or ())
    # VOC, and the tools that write its palette, keep 255 for what is neither
    return dataclasses.replace(
        encoding, kind="index", void=_void_beside_foreground(encoding.foreground, encoding.void, (255,))
    )


def _void_beside_foreground(
    foreground: tuple[Label, ...] | None, void: tuple[Label, ...] | None, default: tuple[Label, ...]
) -> tuple[Label, ...]:
    """Void as given, else the default but for labels that are foreground."""
    return void if void is not None else tuple(label for label in default if label not in (foreground or ()))


def _resolve_numbers(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    _require_range(masks)
    if encoding.kind in ("binary", "soft"):
        return dataclasses.replace(
            encoding, void=encoding.void or (), white=encoding.white or _white_value(masks, encoding.kind)
        )
    levels = _all_levels(masks)
    if encoding.kind == "index":
        return dataclasses.replace(
            encoding, void=_void_beside_foreground(encoding.foreground, encoding.void, _default_void(levels))
        )
    if encoding.foreground is not None or encoding.void:
        return _resolve_given(masks, encoding)
    return _guess_numbers(masks)


def _resolve_given(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    """Numbers with labels that the user gave: which are shares, turned round or not, and which are labels."""
    try:
        guess = _guess_numbers(masks)
    except MaskEncodingError:
        guess = MaskEncoding("index", void=())
    guessed_levels = {0, int(guess.white or 0)}
    if guess.kind == "soft" and not encoding.void and set(encoding.foreground or ()) <= guessed_levels:
        return dataclasses.replace(encoding, kind="soft", void=(), white=guess.white)
    if guess.kind == "binary" and masks[0].lossy and set(encoding.foreground or ()) <= guessed_levels:
        return dataclasses.replace(encoding, kind="binary", void=(), white=guess.white)
    return dataclasses.replace(
        encoding, kind="index", void=_void_beside_foreground(encoding.foreground, encoding.void, guess.void or ())
    )


def _guess_numbers(masks: Sequence[MaskContents]) -> MaskEncoding:
    """Numbers without a given encoding."""
    levels = _all_levels(masks)
    largest, fractions = levels[-1], any(level != int(level) for level in levels)
    top = 65535.0 if largest > 255 else 255.0
    if fractions:
        if largest > 1 and not 250 <= largest <= 255:
            raise refusal(masks, f"fractions up to {largest:g}", _EITHER + "; shares go up to 1 or to 255")
        return MaskEncoding("soft", void=(), white=1.0 if largest <= 1 else 255.0)
    if set(levels) <= {0, 1}:
        return MaskEncoding("binary", void=(), white=1.0)
    if set(levels) <= {0, top} or (top == 255 and all(level == 0 or level >= 250 for level in levels)):
        return MaskEncoding("binary", void=(), white=top)
    if any(mask.lossy for mask in masks):
        return _guess_lossy(masks, largest)
    if len(levels) > _SMALL and _changes_smoothly(masks, top):
        if largest < 0.9 * top:
            raise refusal(masks, f"{len(levels)} grey levels that run into each other, up to {largest:g}", _EITHER)
        _require_ends(masks, top)
        return MaskEncoding("soft", void=(), white=top)
    if top not in levels:
        return _guess_labels(masks, levels)
    return _guess_with_top(masks, levels, top)


def _changes_smoothly(masks: Sequence[MaskContents], top: float) -> bool:
    """Whether most masks of many levels change in small steps, as no labels do."""
    shares = [mask.smooth(top / 16) for mask in masks if len(mask.levels) > _SMALL // 2]
    return bool(shares) and sum(shares) / len(shares) > 0.5


def _guess_lossy(masks: Sequence[MaskContents], largest: float) -> MaskEncoding:
    """JPEG and other lossy files: two values with noise about them, or soft."""
    counts = {level: sum(mask.levels.get(level, 0) for mask in masks) for level in _all_levels(masks)}
    clear = sum(n for level, n in counts.items() if level <= 64 or level >= 191) / sum(counts.values())
    if largest < 200:
        contents = f"a JPEG, or another lossy file, with values up to {largest:g}"
        raise refusal(masks, contents, "such files cannot hold labels: save the masks as PNG")
    return MaskEncoding("binary" if clear >= 0.95 else "soft", void=(), white=255.0)


def _guess_labels(masks: Sequence[MaskContents], levels: list[float]) -> MaskEncoding:
    """Whole numbers that do not reach white."""
    if 0 not in levels:
        raise refusal(masks, f"the values {_levels_text(levels)}, and no 0 for background", _LABELS)
    if set(levels) <= _voc_greys() and 220 in levels:
        return MaskEncoding("index", void=(220,))
    if len(levels) > 3 and (labels := _labels_between_shades(masks, levels)):
        if len(labels) == 1:
            return MaskEncoding("soft", void=(), white=labels[0])  # one label that was resized, with soft edges
        contents = f"the labels {_levels_text(labels)} with shades between them and 0, as resizing makes them"
        raise refusal(masks, contents, "resize label masks to the nearest neighbour (Image.Resampling.NEAREST)")
    many_levels = len(levels) > 2 and levels[-1] > _SMALL
    if many_levels and _share_in_areas(masks, (0,)) < 0.5:
        raise refusal(masks, f"{len(levels)} values up to {levels[-1]:g} that form no areas", _EITHER)
    return MaskEncoding("index", void=())


def _labels_between_shades(masks: Sequence[MaskContents], levels: list[float]) -> list[float]:
    """Values with areas, where more others are thin and lie between a lower and a higher one; empty where not.

    Such shades are in most masks: things of a few pixels, which some masks hold, are labels as others are. What a sharp
    resize leaves beyond labels, above the largest and near 0, is passed over.
    """
    areas = {level for mask in masks for level in mask.areas}
    labels = [level for level in levels if level in areas and level != 0]
    thin = [level for level in levels if level not in areas]
    if len(thin) < 2 or len(thin) <= len(labels) or not labels or levels[-1] > (1 + _BEYOND) * labels[-1]:
        return []
    inner = [level for level in thin if _BEYOND * labels[-1] <= level <= labels[-1]]
    labelled = [mask for mask in masks if any(level in mask.levels for level in labels)]
    shares = [share for mask in labelled if (share := mask.between(inner)) is not None]
    return labels if 2 * len(shares) > len(labelled) and sum(shares) >= _BETWEEN * len(shares) else []


def _guess_with_top(masks: Sequence[MaskContents], levels: list[float], top: float) -> MaskEncoding:
    """Whole numbers that reach white: soft edges, or labels beside a void of 255."""
    between = [level for level in levels if 0 < level < top]
    flat = _share_in_areas(masks, (0, top))
    with_top = [mask for mask in masks if top in mask.levels]
    beside = [mask for mask in with_top if any(level in mask.levels for level in between)]
    if (between[-1] <= _SMALL and top == 255) or (top > 255 and flat >= 0.5 and beside):
        if flat < 0.3:
            raise refusal(masks, f"faint values {_levels_text(between)} beside {top:g} that form no areas", _EITHER)
        if beside and 2 * len(beside) < len(with_top):
            n_alone = len(with_top) - len(beside)
            contents = f"{top:g} alone in {n_alone} masks, and beside {_levels_text(between)} in {len(beside)}"
            raise refusal(beside, contents, f"{_LABELS}: is {top:g} void, or object?")
        if 0 not in levels:
            raise refusal(masks, f"the values {_levels_text(levels)}, and no 0 for background", _LABELS)
        return MaskEncoding("index", void=(int(top),) if beside else ())
    if flat < 0.5:
        _require_ends(masks, top)
        return MaskEncoding("soft", void=(), white=top)
    halves = [mask for mask in masks if {127, 128} & set(mask.levels)]
    if not beside and set(between) <= {127, 128} and 5 * len(halves) <= len(masks):
        return MaskEncoding("soft", void=(), white=top)
    raise refusal(masks, f"areas of the values {_levels_text(levels)}", _EITHER)


def _require_ends(masks: Sequence[MaskContents], top: float) -> None:
    """Soft masks are mostly object or background; a picture is mostly neither."""
    middle = float(np.mean([((m.values > 0.1 * top) & (m.values < 0.9 * top)).mean() for m in masks]))
    if middle > 0.85:
        contents = f"grey levels, {middle:.0%} of the pixels neither near 0 nor near {top:g}: photographs?"
        raise refusal(masks, contents, 'say encoding="soft" if they are masks all the same')


def _resolve_alpha(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    """The channel of transparency, unless the colours are a mask of their own that says something else."""
    planes = [
        MaskContents(mask.path, f"alpha of {mask.mode}", "numbers", mask.alpha)
        for mask in masks
        if mask.alpha is not None
    ]
    if not planes:
        raise refusal(masks, "no transparency", 'encoding="alpha" needs some; leave encoding out')
    if encoding.kind == "auto":
        _require_agreement(masks)
    levels = _all_levels(planes)
    if encoding.foreground is None and (levels[0], levels[-1]) == (0, _OPAQUE):  # between them: edges, no labels
        return dataclasses.replace(encoding, kind="alpha", white=float(_OPAQUE), void=())
    inner = resolve(planes, dataclasses.replace(encoding, kind="auto"))
    if inner.kind == "index":  # one level, whatever it is: a cover that can be seen through
        inner = dataclasses.replace(inner, white=max(_all_levels(planes)))
    return dataclasses.replace(inner, kind="alpha", white=inner.white or 255.0, void=())


def _require_agreement(masks: Sequence[MaskContents]) -> None:
    for mask in masks:
        without_alpha = dataclasses.replace(mask, alpha=None)
        if mask.alpha is None or len(without_alpha.colours if mask.kind == "colours" else without_alpha.levels) < 2:
            continue
        try:
            object_of_colours = foreground_of(without_alpha, resolve([without_alpha], MaskEncoding()))[0] > 127
        except MaskEncodingError:
            continue  # a picture, cut out: its colours are no mask
        share_differing = float((object_of_colours != (mask.alpha > int(mask.alpha.max()) / 2)).mean())
        if share_differing > 0.02:
            raise refusal(
                [mask],
                f"a channel of transparency and colours that say different things on {share_differing:.0%} of the "
                "pixels",
                'say encoding="alpha", or "colour", "binary", "index" for the colours',
            )


def _resolve_colours(masks: Sequence[MaskContents], encoding: MaskEncoding) -> MaskEncoding:
    colours: dict[Colour, int] = {}
    for mask in masks:
        for colour, count in mask.colours.items():
            colours[colour] = colours.get(colour, 0) + count
    examples = first_few((f"{colour}" for colour in sorted(colours, key=lambda c: -colours[c])), 6)
    void = (VOC_VOID,) if encoding.void is None else encoding.void
    if encoding.kind in ("index", "soft"):
        raise refusal(masks, f"the colours {examples}", f'encoding="{encoding.kind}" needs numbers; {_COLOURS}')
    if encoding.foreground is not None:
        return dataclasses.replace(encoding, kind="colour", void=void)
    if encoding.kind == "binary" and len(colours) == 2:
        return dataclasses.replace(encoding, kind="colour", foreground=(max(colours, key=sum),), void=void)
    if _BLACK not in colours and not any(mask.lossy for mask in masks):
        raise refusal(masks, f"the colours {examples}, and no black for background", _COLOURS)
    if encoding.kind == "auto" and (busy := next((mask for mask in masks if _is_picture(mask)), None)) is not None:
        raise refusal([busy], f"{len(busy.colours)} colours: a preview or a photograph?", _COLOURS)
    return dataclasses.replace(encoding, kind="colour", void=void)


def _is_picture(mask: MaskContents) -> bool:
    """Whether colours are many and neither few areas nor shades at the edges of some."""
    if len(mask.colours) <= 64:
        return False
    coarse = (mask.as_colours() >> 5).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.bincount(coarse.ravel())
    frequent = counts[counts >= 0.005 * coarse.size]
    bright = mask.as_colours().max(2)
    clear = float(((bright < 32) | (bright >= 96)).mean())
    return bool(len(frequent) > 24 or clear < 0.9 or float((bright < 32).mean()) < 0.01)


def _all_levels(masks: Sequence[MaskContents]) -> list[float]:
    return sorted({level for mask in masks for level in mask.levels})


def _share_in_areas(masks: Sequence[MaskContents], apart_from: Sequence[float]) -> float:
    """The share of pixels with other values than these that lie in areas, of the masks that have such."""
    shares = [mask.flat(apart_from) for mask in masks if not set(mask.levels) <= set(apart_from)]
    return sum(shares) / len(shares) if shares else 1.0


def _default_void(levels: Sequence[float]) -> tuple[Label, ...]:
    return (255,) if 255 in levels and any(0 < level < 255 for level in levels) and levels[-1] == 255 else ()


def _white_value(masks: Sequence[MaskContents], kind: str) -> float:
    largest = _all_levels(masks)[-1]
    if kind == "binary":
        return largest or 1.0
    if masks[0].values.dtype.kind == "f":
        return 1.0 if largest <= 1 else 255.0 if largest <= 255 else 65535.0
    return 255.0 if largest <= 255 else 65535.0


def _require_range(masks: Sequence[MaskContents]) -> None:
    for mask in masks:
        low, high = float(mask.values.min()), float(mask.values.max())
        if not np.isfinite((low, high)).all() or low < 0:
            raise refusal(
                [mask],
                f"values from {low:g} to {high:g}",
                "masks hold none below 0 and none that is not finite: apply a sigmoid to logits, save labels from 0, "
                "and for what is no data a label that void= names",
            )


def _voc_greys() -> set[float]:
    """The grey levels of VOC's label colours once a program has turned the masks grey."""
    red, green, blue = voc_palette().astype(int).T
    return set(((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(float).tolist())


def _levels_text(levels: Sequence[float]) -> str:
    return first_few((f"{level:g}" for level in levels), 8)
