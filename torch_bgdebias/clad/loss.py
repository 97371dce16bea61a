"""``CLADLoss``: queue and loss in one module, for your own training loop."""

from __future__ import annotations

from torch import Tensor, nn

from torch_bgdebias.checks import check_embedding, check_label
from torch_bgdebias.clad.functional import check_key, check_temperature, clad_queue_loss
from torch_bgdebias.clad.queue import NegativeQueue

__all__ = ["CLADLoss"]


class CLADLoss(nn.Module):
    """Pulls each sample towards its object on another background, away from other objects on its own background.

    Each call first enqueues the positives (detached) under their background's label, then contrasts every anchor with
    its positive and with the queue of its own label: a sample of class c usually stands on backgrounds of class c, and
    queue c holds other classes on these backgrounds. In evaluation mode (``.eval()``) the queue is only read.

    The key is any nuisance label: texture, hospital site, camera. Then ``label`` is the anchor's own nuisance label,
    ``background_label`` that of the positive, and ``foreground`` the anchor's class, so that no sample of its own class
    becomes its negative.

    Args:
        num_classes: how many keys there are.
        dim: width of the embeddings; ``None`` takes it from the first batch, or from a checkpoint.
        num_negatives: rows per key; the paper's 32.
        temperature: of the softmax, above 0; the paper's 0.2.
        max_batch: as for `NegativeQueue`: with several processes and this number nothing waits for the device.

    Raises:
        ValueError: a number out of range.

    Source: CLAD, arXiv 2210.02748. Total loss there: CE(x) + lambda * this; CLAD+ adds CE(x+).

    Example:
        >>> import torch
        >>> loss = CLADLoss(num_classes=3)
        >>> x, label = torch.eye(3), torch.tensor([0, 1, 2])
        >>> float(loss(x, x, label, label.roll(1))) > 0
        True
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        num_negatives: int = 32,
        temperature: float = 0.2,
        *,
        max_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)
        self.queue = NegativeQueue(num_classes, num_negatives, dim, max_batch=max_batch)

    def forward(
        self,
        anchor: Tensor,
        positive: Tensor,
        label: Tensor,
        background_label: Tensor,
        foreground: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of the batch; samples whose queue is empty count as exactly 0, without gradient.

        Args:
            anchor: (B, D) embeddings of the original images.
            positive: (B, D) embeddings of the same foregrounds on other backgrounds.
            label: (B,) which queue holds each anchor's negatives: its class, or its nuisance label.
            background_label: (B,) key of each positive's background; -1 (unknown) is not enqueued.
            foreground: (B,) class of each sample, needed where ``label`` is not the class. With it, queued rows of the
                same class are not negatives, and ``label`` may be -1 (unknown: no negatives).

        Raises:
            TypeError: embeddings that are not floating point, labels that are not integers.
            ValueError: other shapes or widths, labels outside the classes, non-finite embeddings (with the samples).
        """
        check_embedding(anchor, name="anchor", dim=self.queue.dim)
        batch, keys = anchor.shape[0], self.queue.num_classes
        label = check_label(label, batch, num_classes=keys) if foreground is None else check_key(label, batch, keys)
        check_embedding(positive, name="positive", dim=anchor.shape[1])
        if self.training:
            self.queue.enqueue(positive, background_label, foreground, name="positive")
        valid = self.queue.valid(label, foreground)
        rows = self.queue.rows if self.queue.dim else anchor.new_zeros(keys, self.queue.size, anchor.shape[1])
        return clad_queue_loss(anchor, positive, rows, label, valid, self.temperature)

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"temperature={self.temperature}"
