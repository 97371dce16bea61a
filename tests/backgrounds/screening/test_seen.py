"""What a classifier saw is kept by content and weights, and looked up again."""

from __future__ import annotations

import pytest
import torch
from four_kinds import NAMES, pictures
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank


class Counting(nn.Module):
    """Counts the images that reach a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shown = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shown += len(image)
        return self.model(image)


def test_what_was_seen_is_kept_by_content_and_weights(network, tmp_path):
    counting = Counting(network)
    image, _ = pictures(6, 5)
    bank = BackgroundBank(image)
    options = {"class_names": NAMES, "cache": tmp_path}
    first = bank.filter(counting, ["square"], 1, **options)
    assert counting.shown == 24 + 1  # one to count the classes
    again = bank.filter(counting, ["square"], 1, **options)
    assert torch.equal(again.images, first.images)
    bank.filter(counting, ["bar"], 2, **options)  # other classes and a larger k: nothing to look at
    assert counting.shown == 25
    more = BackgroundBank(torch.cat([image.flip(0), pictures(1, 9)[0]]))
    more.filter(counting, ["square"], 1, **options)  # the same images elsewhere, four new ones
    assert counting.shown == 29
    with torch.no_grad():
        counting.model[-1].bias[0] += 1e-3
    bank.filter(counting, ["square"], 1, **options)  # other weights
    assert counting.shown == 29 + 25
    bank.filter(counting, ["square"], 1, size=8, **options)  # another size
    assert counting.shown == 29 + 50
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"broken")
    with pytest.warns(UserWarning, match="cannot be read .*looks at all images again"):
        bank.filter(counting, ["square"], 1, **options)
    assert counting.shown == 29 + 75
    assert not list(tmp_path.glob("*.part"))


def test_the_cache_folder_follows_the_environment(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    BackgroundBank(pictures(1, 0)[0]).filter(network, [1], 1)
    assert len(list((tmp_path / "torch_bgdebias/seen").glob("*.pt"))) == 1
