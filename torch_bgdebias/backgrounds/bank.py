"""``BackgroundBank``: many backgrounds in one tensor on the device, sampled without host synchronisation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.backgrounds import storage
from torch_bgdebias.backgrounds.folder import ImageFiles, read_dataset
from torch_bgdebias.backgrounds.forbidden import ForbiddenDraws, ForbiddenPairs
from torch_bgdebias.backgrounds.pool import check_images, check_normalisation, in_image_units
from torch_bgdebias.backgrounds.sampling import ClassOrder, draw_outside
from torch_bgdebias.backgrounds.screening.filter import FilterSettings, FilterStep, Verdict, decide, screen_images
from torch_bgdebias.backgrounds.screening.viewer import Classifier
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_label, describe

__all__ = ["BackgroundBank"]


class BackgroundBank:
    """Background images, with or without a class each, stored in the dtype that they came in (uint8 stays uint8).

    100,000 images of 3 x 224 x 224 take 15 GB as uint8; nothing here ever makes a float copy of more images than are
    asked for. The bank is a plain object, not a module: it is in nobody's state dict, and no data parallel wrapper
    sends it around.

    Args:
        images: (N, C, Hb, Wb), uint8, which is scaled to [0, 1] when it is used, or floating point, taken as it is; or
            volumes (N, C, Db, Hb, Wb).
        labels: (N,) integers, the class or scene category of each background, -1 unknown; ``None`` when there are none.
        mean: per channel: the normalisation of the training images, applied to the (scaled) pixels when they are used.
            Leave it out where the training images are in [0, 1], or the bank's are normalised already.
        std: per channel, together with ``mean``.
        classes: names of the labels 0, 1, ...

    Raises:
        TypeError: images neither uint8 nor floating point, labels not integers.
        ValueError: no image, another rank, NaN, labels of another length, ``mean`` or ``std`` of another length.

    Example:
        >>> bank = BackgroundBank(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 2]))
        >>> images, labels = bank.sample(5, exclude_labels=torch.tensor([0, 0, 0, 0, 0]))
        >>> tuple(images.shape), images.dtype, bool((labels > 0).all())
        ((5, 3, 8, 8), torch.float32, True)
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | None = None,
        *,
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.images = check_images(images)
        self.labels: Tensor | None = None
        self.classes = None if classes is None else tuple(classes)
        self.num_classes = 0
        self._order: ClassOrder | None = None
        self._largest_class: int | None = None
        #: which foreground classes must not stand in front of which images
        self.forbidden_pairs: ForbiddenPairs | None = None
        self._draws: ForbiddenDraws | None = None
        #: what `filter` did to make this bank, first step first
        self.filters: tuple[FilterStep, ...] = ()
        self.mean, self.std = check_normalisation(mean, std, images)
        if labels is not None:
            self._set_labels(check_label(torch.as_tensor(labels), len(images), name="labels").to(images.device))

    def _set_labels(self, labels: Tensor) -> None:
        self.labels = labels
        self._order = ClassOrder.of(labels)
        self.num_classes = int(labels.max()) + 1 if self.classes is None else len(self.classes)
        #: every background has the same label: leaving that one out leaves nothing
        self.single_class = bool((labels == labels[0]).all())
        self._largest_class = int(torch.unique(labels, return_counts=True)[1].max())

    def forbid(self, pairs: ForbiddenPairs) -> None:
        """Exclude images for some foreground classes; `filter` finds such pairs."""
        self.forbidden_pairs = pairs
        order = None if self._order is None else self._order.order
        self._draws = ForbiddenDraws.of(pairs, order, len(self), self.device)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        classes = "no labels" if self.labels is None else f"{self.num_classes} classes"
        return f"{type(self).__name__}({describe(self.images)}, {classes}, device={self.device})"

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    @property
    def restricted(self) -> bool:
        """Whether some foreground classes must not get some of the images: draws then need ``foreground_labels``."""
        return self.forbidden_pairs is not None

    @property
    def size(self) -> tuple[int, ...]:
        """(Hb, Wb) of the images, (Db, Hb, Wb) of volumes."""
        return tuple(self.images.shape[2:])

    def to(self, device: torch.device | str) -> Self:
        """Move the bank in place, as a module does, and return it."""
        self.images = self.images.to(device)
        self.mean = None if self.mean is None else self.mean.to(device)
        self.std = None if self.std is None else self.std.to(device)
        if self.labels is not None and self._order is not None:
            self.labels = self.labels.to(device)
            self._order = ClassOrder(*(part.to(device) for part in self._order))
        self._draws = None if self._draws is None else self._draws.to(device)
        return self

    def draw(
        self,
        n: int,
        exclude_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        cells: int = 1,
        foreground_labels: Tensor | None = None,
    ) -> Tensor:
        """Positions of random backgrounds: uniform over the admissible ones, independent for each row.

        Args:
            n: how many.
            exclude_labels: (n,) int64, per draw the label that must not come; one that the bank lacks excludes nothing.
            generator: on the bank's device; torch's global one by default.
            cells: backgrounds a row; they differ within the row where there are enough admissible ones.
            foreground_labels: (n,) int64, class of the foreground that each draw is for; needed when `filter` was given
                lists by foreground class, which are then obeyed. A class without a list may get everything.

        Returns:
            int64 (n,), or (n, cells) when ``cells`` is above 1; -1 where nothing is admissible, which needs a bank
            of a single class, or lists that leave nothing outside of ``exclude_labels``.

        Raises:
            ValueError: labels to exclude, but the bank has none, or not one a draw; no foreground labels where they
                are needed.
        """
        if exclude_labels is not None:
            if self._order is None:
                raise ValueError("exclude_labels: expected a bank with labels, got one without; pass labels=")
            exclude_labels = check_label(exclude_labels, n, name="exclude_labels")
        if self._draws is not None:
            if foreground_labels is None:
                raise ValueError(
                    "foreground_labels: expected (n,), the bank was filtered by foreground class; -1 is no class"
                )
            foreground = check_label(foreground_labels, n, name="foreground_labels")
            index = self._draws.draw(foreground, self._order, exclude_labels, cells, generator=generator)
        elif self._order is None or exclude_labels is None:
            nothing = torch.zeros(n, dtype=torch.int64, device=self.device)
            index = draw_outside(len(self), nothing, nothing, cells, generator=generator)
        else:
            index = self._order.draw(exclude_labels, cells, generator=generator)
        return index if cells > 1 else index[:, 0]

    def sample(
        self,
        n: int,
        exclude_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        foreground_labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Random backgrounds in the units of the training images: float, scaled to [0, 1] and normalised.

        Arguments as `draw`.

        Returns:
            images (n, C, Hb, Wb) float, labels (n,) int64 (-1 in a bank without labels).

        Raises:
            ValueError: a label to exclude in a bank of a single class; nothing left for a foreground by the lists
                of `filter` together with the label to exclude.
        """
        if exclude_labels is not None and self.labels is not None and self.single_class:
            raise ValueError("exclude_labels: expected a bank of at least two classes, got one class")
        index = self.draw(n, exclude_labels, generator, foreground_labels=foreground_labels)
        if self._may_exclude_all(exclude_labels) and bool((index < 0).any()):
            rows = (index < 0).nonzero().flatten().tolist()
            raise ValueError(f"foreground_labels: the bank's filters leave no background for draw(s) {rows[:8]}")
        labels = torch.full_like(index, -1) if self.labels is None else self.labels[index]
        return self.float_images(index), labels

    def _may_exclude_all(self, exclude_labels: Tensor | None) -> bool:
        """Whether the lists by foreground class are so long that a draw can come out empty; read on the host."""
        if self.forbidden_pairs is None:
            return False
        n_excluded = int(self.forbidden_pairs.counts().max())
        if exclude_labels is not None and self._largest_class is not None:
            n_excluded += self._largest_class
        return n_excluded >= len(self)

    def float_images(self, index: Tensor) -> Tensor:
        """The images at ``index`` (n,), float (n, C, Hb, Wb) in the training images' range."""
        return in_image_units(self.images[index], self.mean, self.std)

    def subset(self, index: Tensor) -> BackgroundBank:
        """A bank of some of the backgrounds, with their labels, normalisation, filters and forbidden pairs.

        Args:
            index: int64 positions, or a bool (N,). A copy of those images is made.

        Raises:
            ValueError: nothing chosen.
        """
        positions = torch.arange(len(self))[index.cpu()]
        pairs = None if self.forbidden_pairs is None else self.forbidden_pairs.select(positions)
        return self._of_remaining(Verdict(self.filters, positions, pairs), self.images[positions.to(self.device)])

    def _of_remaining(self, verdict: Verdict, images: Tensor) -> BackgroundBank:
        """Another bank of the images that stay, with the lists by foreground class and the history of filters."""
        labels = None if self.labels is None else self.labels[verdict.stay.to(self.device)]
        bank = BackgroundBank(images, labels, mean=self.mean, std=self.std, classes=self.classes)
        bank.filters = verdict.steps
        if verdict.forbidden is not None:
            bank.forbid(verdict.forbidden)
        return bank

    def labels_at(self, index: Tensor) -> Tensor:
        """Labels at ``index`` of any shape; -1 where the index is -1 or the bank has no labels."""
        if self.labels is None:
            return torch.full_like(index, -1)
        return torch.where(index >= 0, self.labels[index.clamp(min=0)], -1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank with its filters and forbidden pairs to one file for `load` atomically."""
        content = storage.BankContent(
            self.images, self.labels, self.mean, self.std, self.classes, self.forbidden_pairs, self.filters
        )
        storage.write(content, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> BackgroundBank:
        """Read what `save` wrote; ``mmap`` leaves the images on the disk until they are used."""
        content = storage.read(path, mmap=mmap)
        try:
            bank = BackgroundBank(
                content.images, content.labels, mean=content.mean, std=content.std, classes=content.classes
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        bank.filters = content.filters
        if content.forbidden is not None:
            bank.forbid(content.forbidden)
        return bank

    def filter(
        self,
        classifier: Classifier,
        forbidden: Sequence[int | str] | Mapping[int, Sequence[int | str]],
        top_k: int = 5,
        *,
        class_names: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        cache: str | os.PathLike[str] | bool | None = None,
    ) -> BackgroundBank:
        """A copy without the backgrounds in which a classifier sees a forbidden class among its ``top_k``.

        A background that shows a bird makes a bird of every foreground: On Background Bias of Post-Hoc Concept
        Embeddings (arXiv 2504.08602) keeps such backgrounds out. The classifier looks at every image once, whole and
        resized to its input size (no central crop: the borders are shown too); what it saw is kept on the disk.

        Args:
            classifier: a timm model by name, a module, or any callable from images (B, C, h, w) to logits (B, K).
            forbidden: classes as indices, names or WordNet ids: images in which one is seen leave the bank. A mapping
                {foreground class: classes} keeps the images, and keeps each foreground class away from those in which
                one of its own forbidden classes is seen, whenever backgrounds are drawn.
            top_k, class_names, size, mean, std, batch_size, device, cache: see `ViewSettings`.

        Returns:
            BackgroundBank: another bank; this one stays as it is. ``filters`` tells what was removed and why.

        Raises:
            KeyError: a class that the classifier does not have, or whose name fits several; the message lists near
                names or the WordNet ids.
            TypeError: no such kind of classifier or class.
            ValueError: nothing forbidden, ``top_k`` outside [1, K], images that are neither uint8 nor in [0, 1], logits
                that are not finite, no background left (the message says which filter removed how many).

        Example:
            >>> bank = BackgroundBank(torch.arange(4, dtype=torch.uint8).mul(80).view(4, 1, 1, 1).expand(4, 3, 8, 8))
            >>> def brightness(image):  # "dark", "light"
            ...     return torch.stack([1 - image.mean((1, 2, 3)), image.mean((1, 2, 3))], dim=1)
            >>> len(bank.filter(brightness, ["light"], top_k=1, class_names=["dark", "light"]))
            2
        """
        settings = FilterSettings(
            classifier,
            top_k,
            class_names,
            size,
            mean,
            std,
            batch_size,
            device or self.device,
            cache if cache is None or isinstance(cache, bool) else Path(cache),
            forbidden,
        )
        return self._filtered(settings)

    def _filtered(self, settings: FilterSettings) -> BackgroundBank:
        verdict = decide(screen_images(self.images, settings), settings, self.filters, self.forbidden_pairs)
        nothing_removed = len(verdict.stay) == len(
            self
        )  # lists by foreground class remove nothing: the images are shared then
        return self._of_remaining(
            verdict, self.images if nothing_removed else self.images[verdict.stay.to(self.device)]
        )

    @classmethod
    def from_folder(
        cls,
        root: str | os.PathLike[str],
        size: int | tuple[int, int],
        *,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        on_error: str = "raise",
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
        threads: int | None = None,
    ) -> BackgroundBank:
        """Read ``<root>/<category>/*.jpg`` (any image torchvision's ImageFolder takes) as uint8.

        Each image is scaled until it covers (H, W), keeping its proportions, and cropped at the centre. Categories are
        the sorted folder names, as in ImageFolder. Images that lie in ``root`` itself, without category folders,
        make a bank without labels.

        Args:
            root: the folder.
            size: (H, W), or one number for both; the training images' size, so that nothing is tiled.
            classes: names of the categories to take, in the order of their labels; by default all, sorted.
            channels: 3 (RGB) or 1 (grey).
            on_error: an unreadable or truncated file: "raise" an error that names it, or "skip" it and say at the end
                how many were skipped.
            mean: as for the bank.
            std: as for the bank.
            threads: reading threads, one a core by default.

        Raises:
            FileNotFoundError: no such folder, or no image in it (the message lists what is there).
            OSError: an unreadable image, when ``on_error="raise"``.
            ValueError: every image was unreadable, or ``classes`` that are not there.
        """
        files = ImageFiles.scan(root, size, classes=classes, channels=channels, on_error=on_error)
        images, labels = files.read_all(threads)
        return BackgroundBank(images, labels, mean=mean, std=std, classes=files.classes)

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset[Any],
        fill: str = "tile",
        spec: BatchSpec | None = None,
        *,
        dtype: torch.dtype | None = None,
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> BackgroundBank:
        """The backgrounds of a masked dataset, with their foregrounds removed.

        Args:
            dataset: map-style or iterable; its items are tensors of one size that `BatchSpec` can read.
            fill: "tile" or "mean", how the foreground is removed (`tile_fill`, `mean_fill`).
            spec: where image, label and mask are in an item; ``BatchSpec(label=None)`` makes a bank without labels.
            dtype: ``None`` keeps what the dataset yields; ``torch.uint8`` quantises images in [0, 1].
            mean: as for the bank; leave it out where the dataset normalises.
            std: as ``mean``.
            batch_size: how many images at a time.
            num_workers: of the loader.

        Raises:
            ValueError: an empty dataset, images outside [0, 1] with ``dtype=torch.uint8``, a mask that does not fit.
        """
        images, labels = read_dataset(dataset, fill, spec, dtype=dtype, batch_size=batch_size, num_workers=num_workers)
        return BackgroundBank(images, labels, mean=mean, std=std)
