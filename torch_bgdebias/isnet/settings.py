"""``ISNetSettings``: the callback's options beside rules, loss and batch, validated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_bgdebias.checks import check_count, check_share

__all__ = ["ISNetSettings"]


@dataclass(frozen=True)
class ISNetSettings:
    """Options of `torch_bgdebias.callbacks.ISNetCallback`, which explains them.

    Raises:
        ValueError: a number out of range, or ``network`` that is neither one name nor two.
    """

    weight: float | Callable[[int, int], float] = 0.7
    network: str | tuple[str, str] | None = None
    dimming: float = 1.0
    fraction: float = 1.0
    calibrate: int = 0
    balance: float | None = 1.0
    validate: bool | Sequence[str] = False

    def __post_init__(self) -> None:
        if not callable(self.weight):
            check_share(self.weight, name="weight", kind="P")
        check_share(self.dimming, name="dimming")
        if self.balance is not None and not 0.0 < self.balance < float("inf"):
            raise ValueError(f"balance: expected None or a number above 0, got {self.balance!r}")
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"fraction: expected in (0, 1], got {self.fraction!r}")
        check_count(self.calibrate, name="calibrate", least=0)
        self._check_validate()
        if self.network is None or isinstance(self.network, str):
            return
        if len(self.network) != 2:
            raise ValueError(f"network: expected a name, or those of the first and the last part, got {self.network!r}")
        object.__setattr__(self, "network", tuple(self.network))
        if self.fraction < 1.0 or self.calibrate or self.validate:
            raise ValueError(
                "network: fraction < 1, calibrate and validate take a forward pass of their own, for which one module "
                "has to map images to logits; give its name instead of two"
            )

    def _check_validate(self) -> None:
        if isinstance(self.validate, bool):
            return
        names = self.validate
        if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"validate: expected True, False, or a name for each validation loader, such as ('iid', 'ood'), got "
                f"{names!r}"
            )
        object.__setattr__(self, "validate", tuple(names))

    @property
    def loader_names(self) -> tuple[str, ...]:
        """Names given to the validation loaders; none where their own are taken."""
        return () if isinstance(self.validate, bool) else tuple(self.validate)

    @property
    def parts(self) -> tuple[str, str] | None:
        """Names of the first and the last part of a network that the step calls part by part, else ``None``."""
        return None if self.network is None or isinstance(self.network, str) else self.network

    def weight_at(self, epoch: int, step: int) -> float:
        """P in an epoch, at a number of batches seen.

        Raises:
            ValueError: a schedule that leaves [0, 1].
        """
        weight = self.weight(epoch, step) if callable(self.weight) else self.weight
        return float(check_share(weight, name="weight", kind="P"))
