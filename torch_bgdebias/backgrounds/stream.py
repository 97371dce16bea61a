"""``StreamedBackgroundBank``: a folder too large for memory, sampled through a working set that is renewed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.folder import ImageFiles
from torch_bgdebias.backgrounds.forbidden import ForbiddenDraws, ForbiddenPairs
from torch_bgdebias.backgrounds.sampling import ClassOrder
from torch_bgdebias.backgrounds.screening.filter import FilterSettings, decide, screen_files
from torch_bgdebias.checks import check_count
from torch_bgdebias.seeds import derive_seed

__all__ = ["StreamedBackgroundBank"]


class _Chunk(NamedTuple):
    """Images read ahead, which files they are, and where reading stopped."""

    images: Tensor
    files: list[int]
    cursor: int
    skipped: list[OSError]


class StreamedBackgroundBank(BackgroundBank):
    """A working set of ``capacity`` images from a folder; `refresh` replaces the oldest first.

    Use it wherever a `BackgroundBank` goes. The files pass in an order that is shuffled anew for every round, so that
    each is shown equally often. Threads read the next images ahead while the model trains; `refresh` only puts them in
    place. What the bank holds depends on the seed and on the calls of `refresh` alone, never on how fast the disk was,
    and `state_dict` brings a resumed run back to it. ``BackgroundSwapCallback`` calls `refresh` once a step.

    Build it with `from_folder`. A swap recorded in parameters can be replayed until the next `refresh`.

    Args:
        files: what to read.
        capacity: images held; all of them when the folder has fewer (`refresh` then changes nothing).
        seed: of the order.
        threads: reading threads, one a core by default.
        mean: as for `BackgroundBank`.
        std: as for `BackgroundBank`.

    Raises:
        ValueError: a capacity below one.
        OSError: an unreadable image, when the files say "raise"; with "skip" the next file takes its place.
    """

    def __init__(
        self,
        files: ImageFiles,
        capacity: int,
        *,
        seed: int = 0,
        threads: int | None = None,
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
    ) -> None:
        check_count(capacity, name="capacity")
        self.files = files
        self.seed = seed
        self._threads = threads or os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[_Chunk]] | None = None
        self._round: tuple[int, list[int]] | None = None
        #: as `forbidden_pairs`, for all files
        self.file_pairs: ForbiddenPairs | None = None
        self._capacity = capacity
        first = self._read(0, min(capacity, len(files.paths)))
        super().__init__(first.images, self._labels_of(first.files), mean=mean, std=std, classes=files.classes)
        self._slots = first.files
        self._oldest = 0
        self.skipped = 0
        self._advance(first)

    @classmethod
    def from_folder(  # type: ignore[override]
        cls,
        root: str | os.PathLike[str],
        size: int | tuple[int, int],
        capacity: int,
        *,
        seed: int = 0,
        channels: int = 3,
        on_error: str = "raise",
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
        threads: int | None = None,
    ) -> StreamedBackgroundBank:
        """Scan a folder and read ``capacity`` images; arguments as `BackgroundBank.from_folder` and the class."""
        files = ImageFiles.scan(root, size, channels=channels, on_error=on_error)
        return cls(files, capacity, seed=seed, threads=threads, mean=mean, std=std)

    def refresh(self, k: int) -> None:
        """Replace the ``k`` oldest images by the next ``k`` files, and start reading those after them.

        Call it between an optimiser step and the next forward pass: it writes into the images, which a backward pass
        to a mask still needs.

        Args:
            k: how many, 0 for none; at most the number of images held.

        Raises:
            ValueError: ``k`` outside [0, len(bank)].
            OSError: an unreadable image, when the files say "raise".
        """
        if not 0 <= k <= len(self):
            raise ValueError(f"k: expected in [0, {len(self)}], got {k}")
        if k == 0 or len(self) == len(self.files.paths):
            return
        chunk = self._take(k)
        self._store(chunk, [(self._oldest + i) % len(self) for i in range(k)])
        self._oldest = (self._oldest + k) % len(self)
        self._advance(chunk)
        self._ahead = (k, self._threads_pool().submit(self._read, self._cursor, k))

    def state_dict(self) -> dict[str, Any]:
        """The state that `load_state_dict` restores: the images held, their places, and the position in the folder."""
        state = {"seed": self.seed, "cursor": self._cursor, "oldest": self._oldest, "skipped": self.skipped}
        return {**state, "slots": list(self._slots), "files": len(self.files.paths)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`; the images are read again.

        Raises:
            ValueError: the folder or the capacity is not the one of the state.
            OSError: an image that was there is not readable any more.
        """
        sizes = (len(self.files.paths), len(self))
        saved = (state["files"], len(state["slots"]))
        if sizes != saved:
            raise ValueError(f"state: expected (files, images held) {sizes}, got {saved}")
        if self._ahead is not None:
            self._ahead[1].exception()  # let the reader finish before its place changes
        self._ahead = None
        self.seed, self.skipped = int(state["seed"]), int(state["skipped"])
        self._round = None
        slots = [int(slot) for slot in state["slots"]]
        changed = [index for index in range(len(self)) if slots[index] != self._slots[index]]
        images = []
        with ThreadPoolExecutor(self._threads) as pool:
            for result in pool.map(self.files.read, [slots[index] for index in changed]):
                if isinstance(result, OSError):
                    raise result
                images.append(result)
        if changed:
            self._store(_Chunk(torch.stack(images), [slots[index] for index in changed], 0, []), changed)
        self._cursor, self._oldest = int(state["cursor"]), int(state["oldest"])

    def _take(self, k: int) -> _Chunk:
        if self._ahead is not None and self._ahead[0] == k:
            return self._ahead[1].result()
        if self._ahead is not None:
            self._ahead[1].exception()  # another number was read ahead: let it finish, then read what is asked for
        return self._read(self._cursor, k)

    def _advance(self, chunk: _Chunk) -> None:
        self._cursor = chunk.cursor
        self.skipped += len(chunk.skipped)
        if chunk.cursor <= len(self.files.paths) + len(chunk.files):  # every file is named once, in the first round
            self.files.report_skipped(chunk.skipped)

    def _store(self, chunk: _Chunk, rows_written: list[int]) -> None:
        rows = torch.tensor(rows_written, device=self.device)
        self.images.index_copy_(0, rows, chunk.images.to(self.device, non_blocking=True))
        for row, file in zip(rows_written, chunk.files, strict=True):
            self._slots[row] = file
        labels = self._labels_of(self._slots)
        order = None
        if labels is not None:  # sorted on the host, where the labels are: nothing has to be read back
            self.single_class = bool((labels == labels[0]).all())
            self.labels = labels.to(self.device, non_blocking=True)
            self._largest_class = int(torch.unique(labels, return_counts=True)[1].max())
            order = ClassOrder.of(labels)
            self._order = ClassOrder(*(part.to(self.device, non_blocking=True) for part in order))
        self._forbidden_of_rows(order)

    def _filtered(self, settings: FilterSettings) -> StreamedBackgroundBank:
        readable, screening = screen_files(self.files, settings)
        pairs = None if self.file_pairs is None else self.file_pairs.select(torch.tensor(readable))
        verdict = decide(screening, settings, self.filters, pairs)
        bank = self.over(self.files.only([readable[row] for row in verdict.stay.tolist()]))
        bank.filters = verdict.steps
        if verdict.forbidden is not None:
            bank.forbid_files(verdict.forbidden)
        return bank

    def over(self, files: ImageFiles) -> StreamedBackgroundBank:
        """A bank of the same capacity, seed and device over other files."""
        mean, std = (None if part is None else part.cpu() for part in (self.mean, self.std))
        bank = StreamedBackgroundBank(files, self._capacity, seed=self.seed, threads=self._threads, mean=mean, std=std)
        return bank.to(self.device)

    def forbid_files(self, pairs: ForbiddenPairs) -> None:
        """Exclude files for some foreground classes; `filter` finds such pairs."""
        self.file_pairs = pairs
        self._forbidden_of_rows(None if self.labels is None else ClassOrder.of(self.labels.cpu()))

    def _forbidden_of_rows(self, order: ClassOrder | None) -> None:
        """The pairs of the files held, on the host where both files and pairs are."""
        if self.file_pairs is not None:
            self.forbidden_pairs = self.file_pairs.select(torch.tensor(self._slots))
            order_of_rows = None if order is None else order.order
            self._draws = ForbiddenDraws.of(self.forbidden_pairs, order_of_rows, len(self), self.device)

    def _labels_of(self, files: Sequence[int]) -> Tensor | None:
        labels = self.files.labels
        return None if labels is None else torch.tensor([labels[file] for file in files])

    def _file_at(self, cursor: int) -> int:
        """The file at a position of the endless sequence of shuffled rounds."""
        number, position = divmod(cursor, len(self.files.paths))
        if self._round is None or self._round[0] != number:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
            self._round = (number, torch.randperm(len(self.files.paths), generator=generator).tolist())
        return self._round[1][position]

    def _read(self, cursor: int, count: int) -> _Chunk:
        """The next ``count`` readable images from ``cursor`` on; a whole round without one is an error."""
        images: list[Tensor] = []
        files: list[int] = []
        skipped: list[OSError] = []
        with ThreadPoolExecutor(min(self._threads, count)) as pool:
            while len(images) < count:
                numbers = [self._file_at(cursor + i) for i in range(count - len(images))]
                cursor += len(numbers)
                for file, result in zip(numbers, pool.map(self.files.read, numbers), strict=True):
                    if isinstance(result, Tensor):
                        images.append(result)
                        files.append(file)
                    elif self.files.on_error == "raise":
                        raise result
                    else:
                        skipped.append(result)
                if len(skipped) >= len(self.files.paths) and not images:
                    raise ValueError(f"root: expected readable images, got none; first: {skipped[0]}")
        return _Chunk(torch.stack(images), files, cursor, skipped)

    def _threads_pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="backgrounds")
        return self._pool

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_ahead": None}  # threads stay with their process
