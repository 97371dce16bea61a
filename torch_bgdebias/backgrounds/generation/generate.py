"""``generate_backgrounds``: fills a folder with generated pictures; resumable, prompts and seeds are recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.generation.manifest import Manifest
from torch_bgdebias.backgrounds.generation.sources import (
    BACKGROUND_PROMPTS,
    PictureSource,
    TextToImage,
    uniform_noise,
    versions,
)
from torch_bgdebias.checks import check_count, check_size, describe
from torch_bgdebias.subsets import batched
from torch_bgdebias.writing import marked_folder, save_png

__all__ = ["Generation", "GenerationSettings", "generate_backgrounds", "write_backgrounds"]

#: how often another seed is tried where a picture came out like an earlier one, or black
_ATTEMPTS = 5
_MODEL_FREE_SIZE = (224, 224)


@dataclasses.dataclass(frozen=True)
class Generation:
    """What `write_backgrounds` did.

    Attributes:
        root: the folder.
        made: pictures written.
        kept: pictures that were there already.
        repeated: pictures thrown away because they equalled an earlier one or were of a single colour.
        size: (H, W) of the pictures.
    """

    root: Path
    made: int
    kept: int
    repeated: int
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How many pictures are made, and how.

    Args:
        n: pictures of each category.
        seed: of the whole.
        size: (H, W) asked of the source, or one number for both; a pipeline's own by default, 224 x 224 for others.
        batch_size: pictures in a call.
        device: where a text-to-image pipeline runs; a GPU where there is one by default.
        dtype: of its weights; float16 on a GPU and float32 elsewhere by default.
        negative_prompt: what must not be seen, for pipelines that take one.
        revision: of the weights on the hub.
        options: of the pipeline's call, such as ``{"num_inference_steps": 20}``.

    Raises:
        ValueError: a number or size below 1.
    """

    n: int
    seed: int = 0
    size: int | tuple[int, int] | None = None
    batch_size: int = 4
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    negative_prompt: str | None = None
    revision: str | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_count(self.n, name="n")
        check_count(self.batch_size, name="batch_size")
        check_size(self.size)

    def asked_size(self, model_free: bool) -> tuple[int, int] | None:
        """(H, W) asked of the source; ``None``: its own."""
        return check_size(self.size) or (_MODEL_FREE_SIZE if model_free else None)

    def of_pipeline(self) -> dict[str, Any]:
        """What only a text-to-image pipeline takes."""
        names = ("device", "dtype", "negative_prompt", "revision", "options")
        return {name: getattr(self, name) for name in names}


def generate_backgrounds(
    out: str | os.PathLike[str],
    n: int,
    source: str | os.PathLike[str] | PictureSource | Any = "wuerstchen",
    prompts: Sequence[str] | Mapping[str, str] | None = None,
    *,
    bank_size: int | tuple[int, int] | None = None,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    **settings: Any,
) -> BackgroundBank:
    """Generate ``n`` backgrounds of each category into a folder, and open it as a bank.

    Synthetic backgrounds as in *On Background Bias of Post-Hoc Concept Embeddings* (arXiv 2504.08602): Würstchen with
    prompts for cloudscape, space, jungle, ... "devoid of objects, creatures, vehicles". Text-to-image models do not
    always obey, so `BackgroundBank.filter` should look at the result.

    Args:
        out: the folder; pictures go to ``<out>/<category>/<number>.png``, their prompts, seeds and versions to
            ``<out>/backgrounds.jsonl``. Call again with the same folder to go on after an interruption, or with a
            larger ``n`` for more: what is there is kept.
        n: pictures of each category.
        source: see `write_backgrounds`.
        prompts: see `write_backgrounds`.
        bank_size: (H, W) of the bank; the size of the pictures by default.
        mean: of the bank.
        std: of the bank.
        **settings: seed, size, batch_size, device, dtype, negative_prompt, revision, options: see `write_backgrounds`.

    Returns:
        BackgroundBank: all pictures in the folder, labelled by category.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     bank = generate_backgrounds(out, 3, "noise", size=16)
        >>> tuple(bank.images.shape), bank.classes
        ((3, 3, 16, 16), ('noise',))
    """
    summary = write_backgrounds(out, n, source, prompts, **settings)
    return BackgroundBank.from_folder(summary.root, bank_size or summary.size, mean=mean, std=std)


def write_backgrounds(
    out: str | os.PathLike[str],
    n: int,
    source: str | os.PathLike[str] | PictureSource | Any = "wuerstchen",
    prompts: Sequence[str] | Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
    batch_size: int = 4,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    negative_prompt: str | None = None,
    revision: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Generation:
    """Generate backgrounds into a folder without opening them; see `generate_backgrounds`.

    A picture's seed follows from ``seed``, its category and its number alone: neither ``n``, nor the batch size, nor
    another category changes it. A picture that comes out like an earlier one of the folder, or in a single colour (a
    safety checker's answer), is thrown away and tried with another seed.

    Args:
        out: as there.
        n: as there.
        source: "wuerstchen", the name of any text-to-image pipeline on the Hugging Face hub, a folder that its
            ``save_pretrained`` wrote, a loaded pipeline; "noise" for uniform noise; or any function
            ``(prompts, seeds, size) -> (B, 3, H, W)``, such as `torch_bgdebias.data.paint_scenes`.
        prompts: {category: prompt}, or categories that are their own prompts; ``BACKGROUND_PROMPTS`` for pipelines,
            ``["noise"]`` for noise.
        seed, size, batch_size, device, dtype, negative_prompt, revision, options: see `GenerationSettings`.

    Raises:
        ImportError: the extra ``diffusers`` is not installed.
        OSError: the pipeline cannot be loaded, or the folder cannot be written.
        ValueError: no pictures asked for, a category that is no folder's name, no prompts for a function, pictures in
            the folder that were made with other settings, a source that keeps giving the same picture.
        TypeError: no source.
    """
    settings = GenerationSettings(n, seed, size, batch_size, device, dtype, negative_prompt, revision, options)
    model_free = source == "noise" if isinstance(source, str) else _is_function(source)
    table = _prompts(prompts, source, model_free)
    make, name = _maker(source, model_free, settings.of_pipeline())
    requested_size = settings.asked_size(model_free)
    root = Path(out)
    origin = {"source": name, "options": dict(getattr(make, "options", {})), "asked_size": requested_size}
    with marked_folder(root):
        writer = _Writer(root, make, origin, settings.seed, versions(make))
        for category, prompt in table.items():
            for requests in batched(writer.missing(category, prompt, settings.n), settings.batch_size):
                writer.make(category, prompt, requests)
    return Generation(root, writer.made, writer.kept, writer.repeated, writer.size_of_first())


class _Writer:
    """Makes pictures, throws repeated ones away, writes and records the rest."""

    def __init__(self, root: Path, source: Any, origin: dict[str, Any], seed: int, packages: dict[str, str]) -> None:
        self.root, self.source, self.about, self.seed, self.packages = root, source, origin, seed, packages
        self.manifest = Manifest(root)
        self.known = self.manifest.hashes()
        self.made = self.kept = self.repeated = 0

    def missing(self, category: str, prompt: str, n: int) -> Iterator[int]:
        """Numbers of the pictures to make for ``n`` in all; those that a filter dropped are not made again."""
        number = present = 0
        expected = {"prompt": prompt, **self.about}
        while present < n:
            file = _file(category, number)
            record = self.manifest.records.get(file)
            if record is None:
                present += 1
                yield number
            elif "dropped" not in record:
                first = _seed(self.seed, category, number, int(record.get("attempt", 0)))
                self.manifest.require_same(file, {**expected, "seed": first})
                present += 1
                if (self.root / file).is_file():
                    self.kept += 1
                else:
                    self.known.discard(record["sha256"])  # the file is gone: the same picture may come back
                    yield number
            number += 1

    def make(self, category: str, prompt: str, numbers: Sequence[int]) -> None:
        """Make and write the pictures with these numbers."""
        missing = list(numbers)
        for attempt in range(_ATTEMPTS):
            seeds = [_seed(self.seed, category, number, attempt) for number in missing]
            images = _checked(self.source([prompt] * len(missing), seeds, self.about["asked_size"]), len(missing))
            again = []
            for number, picture_seed, image in zip(missing, seeds, images, strict=True):
                digest = _digest(image)
                if digest in self.known or bool((image == image[:, :1, :1]).all()):
                    self.repeated += 1
                    again.append(number)
                    continue
                file = _file(category, number)
                save_png(image, self.root / file)
                shape = list(image.shape[1:])
                record = {"file": file, "category": category, "prompt": prompt, "seed": picture_seed, **self.about}
                record |= {"attempt": attempt, "size": shape, "sha256": digest, "versions": self.packages}
                self.manifest.add(record)
                self.known.add(digest)
                self.made += 1
            missing = again
            if not missing:
                return
        raise ValueError(
            f"source: {self.about['source']} gave a picture that is there already, or a single colour, for "
            f"{_file(category, missing[0])} with {_ATTEMPTS} seeds in a row"
        )

    def size_of_first(self) -> tuple[int, int]:
        """(H, W) of the folder's pictures."""
        record = next(record for record in self.manifest.records.values() if "size" in record)
        return int(record["size"][0]), int(record["size"][1])


def _maker(source: Any, model_free: bool, settings: dict[str, Any]) -> tuple[Any, str]:
    """The source of the pictures, and its name for the records."""
    if not model_free:
        pipeline = TextToImage(source, **settings)
        return pipeline, pipeline.name
    unused = [name for name, value in settings.items() if value]
    if unused:
        raise ValueError(f"{', '.join(unused)}: expected none, the source is no text-to-image pipeline")
    make = uniform_noise if isinstance(source, str) else source
    return make, str(getattr(make, "__name__", type(make).__name__))


def _is_function(source: Any) -> bool:
    if isinstance(source, os.PathLike) or (hasattr(source, "config") and hasattr(source, "components")):
        return False  # a folder, or a pipeline of diffusers
    if not callable(source):
        raise TypeError(f"source: expected a name, a folder, a pipeline or a function, got {describe(source)}")
    return True


def _prompts(prompts: Sequence[str] | Mapping[str, str] | None, source: Any, model_free: bool) -> dict[str, str]:
    if prompts is None:
        if model_free and source != "noise":
            raise ValueError("prompts: expected the categories that the function draws, got none")
        prompts = ["noise"] if model_free else BACKGROUND_PROMPTS
    if isinstance(prompts, str):
        raise ValueError(f"prompts: expected a list of categories or {{category: prompt}}, got the text {prompts!r}")
    table = dict(prompts) if isinstance(prompts, Mapping) else {name: name for name in prompts}
    bad = [name for name in table if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|')]
    if bad or not table:
        raise ValueError(f"prompts: expected categories that can be folder names, got {bad or 'none'}")
    return table


def _seed(seed: int, category: str, number: int, attempt: int) -> int:
    """48 bits, so that JSON and every generator hold them, and no two pictures share one by accident.

    Not by `derive_seed`: manifests of folders that are there hold these.
    """
    text = f"{seed}/{category}/{number}/{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())


def _file(category: str, number: int) -> str:
    return f"{category}/{number:06d}.png"


def _checked(images: Any, count: int) -> Tensor:
    """uint8 (B, 3, H, W) of what a source returned."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[:2] != (count, 3):
        raise ValueError(f"source: expected pictures ({count}, 3, H, W), got {describe(images)}")
    if images.dtype == torch.uint8:
        return images.cpu()
    low, high = (float(value) for value in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"source: expected uint8 or values in [0, 1], got [{low:g}, {high:g}]")
    return images.float().mul(255).round().to(torch.uint8).cpu()


def _digest(image: Tensor) -> str:
    return hashlib.sha256(f"{tuple(image.shape)}".encode() + image.contiguous().numpy().tobytes()).hexdigest()
