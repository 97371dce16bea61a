"""Which argument of a model is its image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["given_image", "place_of_image"]


def place_of_image(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The name under which a model is given its image; ``None``: it is the first positional argument.

    Raises:
        TypeError: no argument could be images, or several named ones could.
    """
    if args:
        return None
    pictures = [
        name for name, x in kwargs.items() if isinstance(x, Tensor) and x.is_floating_point() and x.ndim in (4, 5)
    ]
    if len(pictures) == 1:
        return pictures[0]
    raise TypeError(
        f"image: expected one float tensor (B, C, H, W) among the model's arguments {', '.join(kwargs)}, got "
        f"{len(pictures)}; give the model its image as the first positional argument"
    )


def given_image(args: tuple[Any, ...], kwargs: dict[str, Any], argument: str | None, module: nn.Module) -> Tensor:
    """What stands where a model's image should.

    Args:
        args, kwargs: of the call.
        argument: from `place_of_image`.
        module: the model, for the error.

    Raises:
        TypeError: it is no tensor.
    """
    image = args[0] if argument is None else kwargs[argument]
    if not isinstance(image, Tensor):
        raise TypeError(
            f"network: expected a module that is given images (B, C, H, W), {type(module).__name__} is given a "
            f"{type(image).__name__}: name the submodule that maps images to logits (ISNetCallback(network=...))"
        )
    return image
