"""Warning once of what a fit's first batches show, without waiting for the device where they are on one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from torch_bgdebias.checks import values_readable

__all__ = ["FirstBatches"]

#: what is drawn at random (flips, crops, mixtures) leaves some batches as they are
_LOOKED_AT = 8


class FirstBatches:
    """Base of what looks at the first batches of a fit for a mistake.

    Args:
        warn: of the mistake.
    """

    def __init__(self, warn: Callable[[], None]) -> None:
        self._warn, self._looks, self._warned = warn, 0, False
        self._flags: list[Tensor] = []

    @property
    def enough(self) -> bool:
        """Whether no further batch needs to be looked at."""
        return self._looks >= _LOOKED_AT or self._warned

    def say(self) -> None:
        """Warn if a batch showed the mistake; waits for the device where the answer is on one."""
        is_wrong, self._flags = any(bool(flag) for flag in self._flags), []
        if is_wrong and not self._warned:
            self._warned = True
            self._warn()

    def _note(self, flag: Tensor) -> None:
        """A bool scalar, whether a batch shows the mistake; where reading it is not free it waits for `say`."""
        self._flags.append(flag)
        if values_readable(flag):
            self.say()
