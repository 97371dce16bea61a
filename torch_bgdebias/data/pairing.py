"""Pairs images with masks by class folder, name and suffix, and explains what to do when masks are missing."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch_bgdebias.files import EXTENSIONS, category_folders, first_few, folder_listing, image_files, same_form, spread
from torch_bgdebias.masks.annotated import AnnotatedMasks
from torch_bgdebias.masks.contents import MASK_EXTENSIONS
from torch_bgdebias.masks.formats.notice import BOX_TABLE, RUN_LENGTH_TABLE, RUN_LENGTHS, annotation_files
from torch_bgdebias.unread import PICTURES_NOT_READ, apart, what_is_not_read

__all__ = ["MaskedSample", "Pairs", "annotated_pairs", "missing_masks_text", "pair", "pictures_of", "size_advice"]

_LOSSY = frozenset((".jfif", ".jpe", ".jpeg", ".jpg"))

#: how masks in formats that are not read are opened
_OPENED_BY = {
    "mat": "scipy.io.loadmat(file) has arrays by name, MATLAB's h5py.File(file)[name][()].T",
    "nii": "nibabel.load(file).get_fdata()[..., slice] has x before y: turn it as the picture is, often by .T",
    "nrrd": "nrrd.read(file)[0] has x before y: save its transpose",
    "dcm": "pydicom.dcmread(file).pixel_array, of a segmentation one array an object",
    "pt": "numpy.save(file, torch.load(file).numpy())",
    "pth": "numpy.save(file, torch.load(file).numpy())",
}


class MaskedSample(NamedTuple):
    """Where one sample's files are: image, mask, and the class's index."""

    image: Path
    mask: Path
    label: int


@dataclass
class Pairs:
    """The samples of a folder, and the images for which there is no one mask.

    Args:
        image_root: the folder of the classes' folders.
        samples: images with their masks.
        missing: images without a mask.
        doubled: images with several masks, of which none is better than the others.
        previews: images with one mask and pictures of the same name that are none.
    """

    image_root: Path
    samples: list[MaskedSample] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    doubled: list[tuple[Path, list[Path]]] = field(default_factory=list)
    previews: list[tuple[Path, list[Path]]] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.samples) + len(self.missing) + len(self.doubled)


def pair(
    root: Path, classes: Sequence[str], suffix: str = "", masks: Path | None = None, images: Path | None = None
) -> Pairs:
    """Find each image's mask: the file of the same class and name, whatever its ending.

    Args:
        root: folder with ``images/`` and ``masks/``; without the latter masks of a suffix are looked for beside the
            images.
        classes: folders in ``images/``, in label order.
        suffix: what a mask's name has after its image's: ``"_mask"`` for ``x_mask.png``.
        masks: the masks' folder, where it is another one.
        images: the folder of the classes' folders, where it is another one.
    """
    image_root = images or root / "images"
    pairs = Pairs(image_root)
    mask_root = masks or (root / "masks" if (root / "masks").is_dir() or not suffix else image_root)
    beside = mask_root == image_root
    counts, unread, unpaired = [], [], []
    for label, name in enumerate(classes):
        files = _mask_index(_same_folder(mask_root, name))
        pictures, further = apart(image_files(image_root / name, extensions=EXTENSIONS | PICTURES_NOT_READ))
        unread += [path for path in further if not suffix or not path.stem.endswith(suffix)]  # .npy is read as a mask
        if suffix and beside:  # a picture's mask lies beside it and is no picture itself
            names = {path.with_suffix("") for path in pictures}
            pictures = [
                p for p in pictures if p.with_name(p.stem.removesuffix(suffix)) not in names - {p.with_suffix("")}
            ]
        counts.append((name, pictures))
        n_before = len(pairs.samples)
        for picture in pictures:
            _add_image(pairs, picture, picture.relative_to(image_root / name), files, label, suffix)
        if not beside:
            used_masks = {sample.mask for sample in pairs.samples[n_before:]}
            unused_masks = {
                key: paths for key, paths in files.items() if key.endswith(suffix) and not used_masks & set(paths)
            }
            instance_masks = _instance_masks(pairs, n_before, image_root / name, unused_masks)
            unpaired += [path for paths in unused_masks.values() for path in paths if path not in instance_masks]
    _warn_of_folders(image_root, counts, unread)
    _warn_of_left_over(root, pairs, unpaired)
    return pairs


def pictures_of(image_root: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Every image in the classes' folders with its label, class by class."""
    by_class, unread = [], []
    for name in classes:
        images, further = apart(image_files(image_root / name, extensions=EXTENSIONS | PICTURES_NOT_READ))
        by_class.append((name, images))
        unread += further
    _warn_of_folders(image_root, by_class, unread)
    return [(path, label) for label, (_, paths) in enumerate(by_class) for path in paths]


def annotated_pairs(image_root: Path, pictures: Sequence[tuple[Path, int]], masks: AnnotatedMasks) -> Pairs:
    """Images with the annotation files that say what is in them.

    Where annotations fit two images, since their names have no folders, neither has a mask of its own.
    """
    pairs = Pairs(image_root)
    twins = {picture: twin for two_pictures in masks.shared() for picture, twin in (two_pictures, two_pictures[::-1])}
    for picture, label in pictures:
        file = masks.file_of(picture)
        if file is None:
            pairs.missing.append(picture)
        elif picture in twins:
            pairs.doubled.append((picture, [file, twins[picture]]))
        else:
            pairs.samples.append(MaskedSample(picture, file, label))
    return pairs


def _warn_of_left_over(root: Path, pairs: Pairs, unpaired: Sequence[Path]) -> None:
    """Masks without an image, which may say that images are missing, and masks that several images share."""
    doubled = {path for _, paths in pairs.doubled for path in paths}
    passed_over = {path for _, paths in pairs.previews for path in paths}
    unpaired = [path for path in unpaired if path not in doubled | passed_over]
    if unpaired and pairs.samples:  # else what is missing is said with more
        warnings.warn(
            f"{root}: {len(unpaired)} masks have no image of their name: "
            f"{first_few((path.name for path in unpaired), 3)}",
            stacklevel=5,
        )
    shared = Counter(sample.mask for sample in pairs.samples)
    if twins := [sample.image.name for sample in pairs.samples if shared[sample.mask] > 1]:
        warnings.warn(
            f"{root}: {len(twins)} images share a mask with another one of the same name: {first_few(twins, 4)}; if "
            "they are one picture in two formats, it counts twice: take one away",
            stacklevel=5,
        )


def _add_image(
    pairs: Pairs, image: Path, relative: Path, masks: dict[str, list[Path]], label: int, suffix: str
) -> None:
    """Add one image where it belongs."""
    names = (relative.with_suffix(""), relative)  # x.png or x.jpg.png for x.jpg
    candidates = next((of_name for n in names if (of_name := masks.get(same_form(n.as_posix()) + suffix))), [])
    clean = [path for path in candidates if path.suffix.lower() not in _LOSSY]
    if not candidates:
        pairs.missing.append(image)
    elif len(candidates) == 1:
        pairs.samples.append(MaskedSample(image, candidates[0], label))
    elif len(clean) == 1:
        pairs.samples.append(MaskedSample(image, clean[0], label))
        pairs.previews.append((clean[0], [path for path in candidates if path not in clean]))
    else:
        pairs.doubled.append((image, candidates))


def _instance_masks(pairs: Pairs, n_before: int, folder: Path, others: dict[str, list[Path]]) -> set[Path]:
    """Masks ``x_1``, ``x_2`` beside the mask ``x`` of an image: one an instance, so that none is the image's mask.

    Their images count as having several masks. Where images are called so themselves, it may be one that is missing.
    """
    numbered = re.compile(r"(.+?)[ _.(-]+\d+\)?")
    bases: dict[str, list[Path]] = {}
    for key, paths in others.items():
        if base := numbered.fullmatch(key):
            bases.setdefault(base[1], []).extend(paths)
    if not bases:
        return set()
    names = (sample.image.relative_to(folder).with_suffix("").as_posix() for sample in pairs.samples[n_before:])
    of_class = dict(zip(names, pairs.samples[n_before:], strict=True))
    if any((base := numbered.fullmatch(name)) and base[1] in of_class for name in of_class):
        return set()
    with_others = {name: sample for name, sample in of_class.items() if same_form(name) in bases}
    if not with_others:
        return set()
    lost = set(with_others.values())
    pairs.samples = [sample for sample in pairs.samples if sample not in lost]
    extra = {name: bases[same_form(name)] for name in with_others}
    pairs.doubled += [(sample.image, [sample.mask, *extra[name]]) for name, sample in with_others.items()]
    return {path for paths in extra.values() for path in paths}


def _mask_index(folder: Path) -> dict[str, list[Path]]:
    """Masks by name without ending, in one Unicode form."""
    index: dict[str, list[Path]] = {}
    for path in image_files(folder, extensions=EXTENSIONS | MASK_EXTENSIONS):
        index.setdefault(same_form(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    return index


def _same_folder(root: Path, name: str) -> Path:
    """The folder of that name, in whatever Unicode form it is written."""
    if (root / name).is_dir() or not root.is_dir():
        return root / name
    return next((path for path in root.iterdir() if same_form(path.name) == same_form(name)), root / name)


def _warn_of_folders(images: Path, counts: Sequence[tuple[str, Sequence[Path]]], unread: Sequence[Path]) -> None:
    """Classes without pictures, pictures so deep that other folders may be the classes, and what is not read."""
    for message in what_is_not_read([path for _, paths in counts for path in paths], unread):
        warnings.warn(f"{images}: {message}", stacklevel=5)
    if empty := [name for name, paths in counts if not paths]:
        warnings.warn(
            f"{images}: {first_few(empty)} of {len(counts)} class folders hold no pictures and still count as classes; "
            "leave them out with classes=",
            stacklevel=4,
        )
    below = [path.relative_to(images / name).parts[:-1] for name, paths in counts for path in spread(paths, 200)]
    folders = {parts[0] for parts in below if parts}
    if below and all(below) and len(folders) > len(counts):
        warnings.warn(
            f"{images}: all pictures lie in folders below the classes ({first_few(sorted(folders))}); if those are the "
            f'classes, pass classes=["{counts[0][0]}/{min(folders)}", ...]',
            stacklevel=4,
        )


def size_advice(image: tuple[int, int], mask: tuple[int, int]) -> str:
    """What to do about a mask of another size than its image's, both (W, H)."""
    if abs(image[0] * mask[1] - image[1] * mask[0]) <= max(*image, *mask):  # the same shape but for a pixel
        return "resize the mask to it (nearest neighbour, so that labels stay labels)"
    return "they have other shapes: was the mask drawn on another picture, or one of them cropped or turned?"


def missing_masks_text(root: Path, pairs: Pairs, suffix: str, masks: Path | None = None) -> str:
    """What to do about images without a mask: what lies where their masks were looked for, and which option fits.

    Args:
        root: the data set's folder.
        pairs: with images that miss their masks.
        suffix: what a mask's name has after its image's.
        masks: the masks' folder, where it is another one than ``root / "masks"``.
    """
    folder = masks or root / "masks"
    shown = "masks" if masks is None else masks
    names = (f"{shown}/{p.relative_to(pairs.image_root).with_suffix('')}{suffix}.png" for p in pairs.missing)
    text = f"{root}: {len(pairs.missing)} of {pairs.images} images have no mask: {first_few(names)}; "
    in_masks = (_other_suffix, _other_name, _without_folders, _other_ending)
    hints = in_masks if folder.is_dir() else (_other_suffix, _other_folder)
    texts = (hint(root, folder, pairs, suffix) for hint in hints)
    return text + (next(filter(None, texts), None) or _annotations(root, pairs) or _masks_to_make(root, folder, pairs))


def _other_folder(root: Path, masks: Path, pairs: Pairs, suffix: str) -> str | None:
    """A folder with the images' names under another one, such as MVTec's ground_truth, where there is no ``masks/``."""
    for folder in category_folders(root):
        if (
            root != pairs.image_root
            and folder.name != "images"
            and any(image_files(folder, extensions=EXTENSIONS | MASK_EXTENSIONS))
        ):
            text = f'there is no folder {masks.name}, but {folder.name}: if it holds the masks, pass masks="{folder}"'
            further = _other_suffix(root, folder, pairs, suffix)
            return text + (f"; {further}" if further else f" (--masks {folder}), or rename it")
    return None


def _other_name(root: Path, masks: Path, pairs: Pairs, suffix: str) -> str | None:
    """Masks that differ from what was looked for in capitals or blanks only, or begin with something more."""
    images = pairs.missing[0]
    relative = images.relative_to(pairs.image_root)
    mask_files = image_files(masks, extensions=EXTENSIONS | MASK_EXTENSIONS)
    for path in mask_files:
        name = path.relative_to(masks).with_suffix("")
        if _plain(name) == _plain(relative.with_suffix("")) + suffix.casefold():
            mask_name = path.relative_to(masks).as_posix()
            difference = "capitals" if mask_name == _without_blanks(mask_name) else "blanks or capitals"
            return f"{masks.name}/{mask_name} differs in {difference} only: rename it"
        if name.parent == relative.parent and name.name.endswith(f"_{relative.stem}"):
            folder = relative.parent.as_posix()
            return f"{masks.name}/{folder} holds {path.name}: rename masks as their images, or end their names"
    return None


def _without_blanks(name: str) -> str:
    return "/".join(part.strip() for part in name.split("/"))


def _plain(name: Path) -> str:
    return _without_blanks(name.as_posix()).casefold()


def _without_folders(root: Path, masks: Path, pairs: Pairs, suffix: str) -> str | None:
    """Masks in ``masks/`` itself instead of in a folder a class."""
    names = {path.stem + suffix for path in pairs.missing}
    files = [path for path in image_files(masks, extensions=EXTENSIONS | MASK_EXTENSIONS) if path.stem in names]
    flat = [path.name for path in files if path.parent == masks]
    if not flat:
        return None
    return f"{masks} holds {first_few(flat, 3)} itself: move masks into folders of classes, {masks.name}/<class>/"


def _other_ending(root: Path, masks: Path, pairs: Pairs, suffix: str) -> str | None:
    """A file of a mask's name, or that begins so, in a format that is not read."""
    relative = pairs.missing[0].relative_to(pairs.image_root)
    folder, stem = masks / relative.parent, f"{relative.stem}{suffix}"
    names = [path.name for path in sorted(folder.glob("*")) if path.name.startswith(f"{stem}.")]
    names += [path.name for path in sorted(folder.glob("*")) if _is_unread(path.name) and path.name.startswith(stem)]
    unread = [name for name in dict.fromkeys(names) if not name.endswith((".json", ".txt", ".xml"))]
    if not unread:
        return None
    ending = unread[0].lower().removesuffix(".gz").rpartition(".")[2]
    advice = f": {_OPENED_BY[ending]}" if ending in _OPENED_BY else ""
    return f"{folder} holds {first_few(unread)}, which is not read: save masks as PNG or .npy{advice}"


def _is_unread(name: str) -> bool:
    return Path(name.lower().removesuffix(".gz")).suffix in PICTURES_NOT_READ - MASK_EXTENSIONS


def _other_suffix(root: Path, masks: Path, pairs: Pairs, suffix: str) -> str | None:
    for images in sorted({path.parent for path in pairs.missing}):
        for folder in (masks / images.relative_to(pairs.image_root), images):
            mask_files = image_files(folder, extensions=EXTENSIONS | MASK_EXTENSIONS)
            rests = _suffixes_among(mask_files, [path for path in pairs.missing if path.parent == images], suffix)
            examples = first_few((path.name for path in mask_files if any(ending in path.stem for ending in rests)), 3)
            if len(rests) > 1:
                suffixes = ", ".join(f'"{ending}"' for ending in sorted(rests))
                return (
                    f"{folder} holds {examples}, several an image ({suffixes}): join them, or pass one as mask_suffix="
                )
            if rests:
                return f'{folder} holds {examples}: pass mask_suffix="{rests[0]}" (--mask-suffix {rests[0]})'
    return None


def _annotations(root: Path, pairs: Pairs) -> str | None:
    beside = sorted({path.parent for path in pairs.missing})
    noticed = annotation_files([*beside, root, root / "annotations", root / "masks", *(root / "masks").glob("*")])
    if not noticed:
        return None
    kinds = first_few(dict.fromkeys(kind for _, kind in noticed))
    files = first_few((path.name for path, _ in noticed), 3)
    path, kind = noticed[0]
    if kind in ("PASCAL VOC", "YOLO boxes", BOX_TABLE):
        advice = "their boxes are no masks: have them filled with --boxes"
    elif kind == RUN_LENGTHS:
        advice = "save them as PNG (pycocotools.mask.decode), or as one COCO file of all pictures"
    elif kind == RUN_LENGTH_TABLE:
        advice = (
            "draw them into PNG: starts and lengths, of most competitions counted from 1 and down the columns, "
            "mask.T.flat[start - 1 : start - 1 + length] = 255"
        )
    else:
        above = next((root / part for part in ("images", "masks") if root / part in path.parents), path.parent)
        source = above if kind in ("LabelMe", "Supervisely", "YOLO") else path
        advice = f'pass masks="{source}" (--masks {source})'
    return f"there are annotations ({kinds}: {files}); {advice}, or {_masks_to_make(root, root / 'masks', pairs)}"


def _masks_to_make(root: Path, masks: Path, pairs: Pairs) -> str:
    beside = masks / pairs.missing[0].parent.relative_to(pairs.image_root)
    folder = next((place for place in (beside, masks) if place.is_dir() and folder_listing(place)), None)
    holds = "" if folder is None else f"{folder} holds {first_few(folder_listing(folder))}; "
    return f"{holds}add them, or make masks with: bgdebias masks {pairs.image_root} {masks}"


def _suffixes_among(mask_files: Sequence[Path], missing: Sequence[Path], suffix: str) -> list[str]:
    """The endings that files have after the names of these images, each for at least half of them."""
    looked_at = [path.stem for path in spread(missing, 50)]
    rests = Counter(
        ending
        for image in looked_at
        for ending in {path.stem.removeprefix(image) for path in mask_files if path.stem.startswith(image)}
        if ending not in ("", suffix) and not ending[0].isdecimal()  # 10 is no mask of 1
    )
    return [ending for ending, count in rests.most_common() if 2 * count >= len(looked_at)]
