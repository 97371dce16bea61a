"""``NegativeQueue``: the latest embeddings per background class, all of its state in buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_count, check_embedding, check_label, describe, values_readable
from torch_bgdebias.clad.distributed import gather_rows
from torch_bgdebias.clad.functional import check_key
from torch_bgdebias.clad.fused import check_lengths
from torch_bgdebias.precision import working_dtype

__all__ = ["NegativeQueue"]

_BUFFERS = ("rows", "foreground", "position", "fill")


class NegativeQueue(nn.Module):
    """A first-in-first-out queue of embeddings for every background class (or any other nuisance label).

    Buffers only, all persistent, so that a checkpoint resumes exactly: ``rows`` (K, N, D), ``foreground`` (K, N) int64,
    ``position`` (K,) where the next row goes, ``fill`` (K,) how many rows there are. Slots that are not filled hold
    zeros and are masked. Nothing here waits for the device, except with several processes and no ``max_batch``.

    Args:
        num_classes: K, how many keys.
        size: N, rows per key.
        dim: D; ``None`` takes it, the dtype and the device from the first embeddings.
        max_batch: with several processes, the most rows that any of them will enqueue at a time (the loader's batch
            size; the same number on each). Then nothing waits; ``None`` has the processes tell each other how many
            rows they have, and every call waits for that on the host.

    Raises:
        ValueError: a number that is not positive.

    Example:
        >>> import torch
        >>> queue = NegativeQueue(num_classes=2, size=2, dim=1)
        >>> queue.enqueue(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 0]))
        >>> queue.in_order()[0][0].flatten().tolist(), queue.fill.tolist()
        ([2.0, 3.0], [2, 0])
    """

    rows: Tensor
    foreground: Tensor
    position: Tensor
    fill: Tensor

    def __init__(self, num_classes: int, size: int, dim: int | None = None, *, max_batch: int | None = None) -> None:
        super().__init__()
        numbers: dict[str, Any] = {"num_classes": num_classes, "size": size, "dim": dim, "max_batch": max_batch}
        for name, value in numbers.items():
            if value is not None or name in ("num_classes", "size"):
                check_count(value, name=name)
        self.max_batch = max_batch
        self.num_classes = num_classes
        self.size = size
        self._lazy = dim is None
        self.register_buffer("rows", torch.zeros(num_classes, size, dim or 0))
        self.register_buffer("foreground", torch.full((num_classes, size), -1))
        self.register_buffer("position", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("fill", torch.zeros(num_classes, dtype=torch.long))

    def _leave_inference_mode(self) -> None:
        """Buffers that were made in inference mode are written to outside of it."""
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return
        for name, value in self.named_buffers(recurse=False):
            if value.is_inference():
                setattr(self, name, value.clone())

    @property
    def dim(self) -> int | None:
        """D, or ``None`` before the first embeddings."""
        return self.rows.shape[2] or None

    @torch.no_grad()
    def enqueue(
        self, embedding: Tensor, background_label: Tensor, foreground: Tensor | None = None, *, name: str = "embedding"
    ) -> None:
        """Append embeddings in order; if a key gets more than ``size``, its newest ``size`` are kept.

        With several processes (torch.distributed) every process's embeddings enter every process's queue, in rank
        order; the numbers of rows may differ between processes. All processes must call this equally often.

        Args:
            embedding: (B, D); the graph is not kept.
            background_label: (B,) key in [0, K); samples with -1 (unknown) are skipped.
            foreground: (B,) class of what is in front, remembered so that `negatives` can leave equal ones out.
            name: what error messages call the embeddings.

        Raises:
            TypeError: not floating point, or keys that are not integers.
            ValueError: another width, a key outside [-1, K), more rows than ``max_batch``, or non-finite embeddings:
                the message lists the samples, where looking is free; on an accelerator non-finite embeddings are
                skipped instead.
        """
        check_embedding(embedding, name=name, dim=self.dim)
        length = torch.linalg.vector_norm(embedding, dim=1, dtype=working_dtype(embedding.dtype))
        check_lengths(length, embedding, name=name)
        key = check_key(background_label, embedding.shape[0], self.num_classes, name="background_label")
        if foreground is None:
            foreground = torch.full_like(key, -1)
        foreground = check_label(foreground, embedding.shape[0], name="foreground")
        self._leave_inference_mode()
        self._materialise(embedding)
        key = torch.where(length.isfinite(), key, -1)
        embedding, key, foreground = gather_rows(embedding.to(self.rows.dtype), key, foreground, self.max_batch)
        if embedding.shape[0]:
            self._write(embedding, key, foreground)

    def negatives(self, label: Tensor, foreground: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The rows for each key.

        Args:
            label: (B,) key in [0, K); -1 (unknown) has no valid rows.
            foreground: (B,); rows whose foreground is known to be the same are not valid.

        Returns:
            (B, N, D) rows in slot order, a copy, and (B, N) bool which of them are valid.
        """
        key = check_key(label, label.shape[0], self.num_classes)
        return self.rows.index_select(0, key.clamp_min(0)), self.valid(key, foreground)

    def valid(self, label: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Which rows are negatives (B, N), without copying them; arguments as in `negatives`."""
        index = label.clamp_min(0)
        slots = torch.arange(self.size, device=label.device)
        valid = (slots < self.fill.index_select(0, index)[:, None]) & (label >= 0)[:, None]
        if foreground is not None:
            other_class = check_label(foreground, label.shape[0], name="foreground")[:, None]
            valid = valid & ((self.foreground.index_select(0, index) != other_class) | (other_class < 0))
        return valid

    def in_order(self) -> tuple[Tensor, Tensor]:
        """All rows (K, N, D), oldest first, and which are filled (K, N): the first ``fill`` of each key."""
        slots = torch.arange(self.size, device=self.rows.device)
        full = self.fill[:, None] == self.size
        order = torch.where(full, (self.position[:, None] + slots) % self.size, slots)
        rows = self.rows.gather(1, order[..., None].expand_as(self.rows))
        return rows, slots < self.fill[:, None]

    def reset(self) -> None:
        """Remove all rows; the embedding width stays."""
        self._leave_inference_mode()
        self.rows.zero_()
        self.foreground.fill_(-1)
        self.position.zero_()
        self.fill.zero_()

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"num_classes={self.num_classes}, size={self.size}, dim={self.dim}"

    def _materialise(self, embedding: Tensor) -> None:
        if self.dim is not None:
            return
        self.to(embedding.device)
        shape = (self.num_classes, self.size, embedding.shape[1])
        self.rows = torch.zeros(shape, dtype=working_dtype(embedding.dtype), device=embedding.device)

    def _write(self, embedding: Tensor, key: Tensor, foreground: Tensor) -> None:
        has_key = key >= 0
        index = key.clamp_min(0)
        same_key = (key[:, None] == key) & has_key
        rank = same_key.tril(-1).sum(1)  # how many of the batch went to this key before
        newer = same_key.triu(1).sum(1)
        stored = has_key & (newer < self.size)
        slot = index * self.size + (self.position.index_select(0, index) + rank) % self.size
        # Everything must go somewhere, or its number would have to be known on the host. What is not kept is written
        # to slot 0, with what slot 0 holds in the end: equal values, so the order of writing does not matter.
        first = stored & (slot == 0)
        winner = first.int().argmax().reshape(1)
        slot = torch.where(stored, slot, 0)
        for store, values in ((self.rows.flatten(0, 1), embedding), (self.foreground.flatten(), foreground)):
            filler = torch.where(first.any(), values.index_select(0, winner), store[:1])
            keep = stored.reshape(-1, *[1] * (values.ndim - 1))
            store.index_copy_(0, slot, torch.where(keep, values, filler))
        count = torch.zeros_like(self.fill).index_add_(0, index, has_key.long())
        self.position.copy_((self.position + count) % self.size)
        self.fill.copy_((self.fill + count).clamp_max(self.size))

    def _check_state(self, state: dict[str, Any], prefix: str) -> None:
        """Raise ValueError for rows that no queue writes: they would be drawn as negatives, or none would be."""
        if not all(isinstance(value, Tensor) and values_readable(value) for value in state.values()):
            return  # load_state_dict names what is missing
        fill, position, shape = state["fill"], state["position"], (self.num_classes,)
        for name, value in (("fill", fill), ("position", position), ("foreground", state["foreground"])):
            if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
                raise ValueError(f"{prefix}{name}: expected integers, got {describe(value)}")
        if fill.shape != shape or position.shape != shape:
            return
        for name, value, limit in (("fill", fill, self.size), ("position", position, self.size - 1)):
            if bool(((value < 0) | (value > limit)).any()):
                low, high = (int(bound) for bound in value.aminmax())
                raise ValueError(f"{prefix}{name}: expected values in [0, {limit}], got [{low}, {high}]")
        if bool(((fill < self.size) & (position != fill)).any()):
            raise ValueError(f"{prefix}position: expected the value of fill for queues that are not full")
        if not bool(state["rows"].isfinite().all()):
            raise ValueError(f"{prefix}rows: expected finite embeddings, got some that are not")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self._check_state({name: state_dict.get(prefix + name) for name in _BUFFERS}, prefix)
        self._leave_inference_mode()
        saved = state_dict.get(f"{prefix}rows")
        if self._lazy and isinstance(saved, Tensor) and saved.ndim == 3 and saved.shape[2] != self.rows.shape[2]:
            # a width that is taken from the data is taken from the checkpoint as well
            self.rows = torch.zeros(
                (self.num_classes, self.size, saved.shape[2]), dtype=saved.dtype, device=self.rows.device
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
