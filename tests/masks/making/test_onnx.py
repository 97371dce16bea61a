"""`OnnxMaker` with files made here: units, sizes, batches, sigmoids, and files that are something else."""

from __future__ import annotations

import pytest
import small_mask_models as small
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from torch_bgdebias.masks import Hints, MaskMakingError, mask_maker
from torch_bgdebias.masks.making.protocol import certainty

UNITS = {"mean": [0.5], "std": [1.0]}


def red_squares(count=3, size=16):
    """Red squares on blue, at other places."""
    truth = torch.zeros(count, size, size)
    for i in range(count):
        truth[i, 2 + i : 9 + i, 3:12] = 1
    return torch.stack([truth, torch.zeros_like(truth), 1 - truth], 1), truth


@pytest.mark.parametrize("batch", [1, 2, 5, "n"])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_red_is_object_whatever_the_file_fixes(tmp_path, batch, sigmoid):
    path = small.save_onnx(tmp_path / "a.onnx", batch=batch, sigmoid=sigmoid, gain=9.0)
    images, truth = red_squares()
    outcome = mask_maker(f"onnx:{path}", **UNITS)(images, Hints.none(3))
    expected = torch.sigmoid(9 * (images[:, 0] - images[:, 2]))  # the same mean leaves both
    torch.testing.assert_close(outcome.mask, expected)
    torch.testing.assert_close(outcome.confidence, certainty(expected))
    assert torch.equal(outcome.mask > 0.5, truth > 0)


def test_units_are_those_that_were_said(tmp_path):
    path = small.save_onnx(tmp_path / "a.onnx", gain=0.25, batch="n")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outcome = mask_maker(f"onnx:{path}", mean=[0.1, 0.5, 0.3], std=[0.5, 1, 0.25])(images, Hints.none(2))
    plane = 0.25 * ((images[:, 0] - 0.1) / 0.5 - (images[:, 2] - 0.3) / 0.25)
    torch.testing.assert_close(outcome.mask, torch.sigmoid(plane))
    named = small.save_onnx(tmp_path / "isnet-small.onnx", gain=0.5, batch="n")
    plain = mask_maker(f"onnx:{named}")(images, Hints.none(2))
    torch.testing.assert_close(plain.mask, torch.sigmoid(0.5 * (images[:, 0] - images[:, 2])))
    assert mask_maker(f"onnx:{named}").name == "onnx:isnet-small.onnx"
    other = mask_maker(f"onnx:{named}", mean=[0.1, 0.5, 0.3], std=[1.0, 1.0, 0.5])
    assert other.name == "onnx:isnet-small.onnx (mean 0.1 0.5 0.3, std 1 1 0.5)", (
        "masks in other units are another maker's"
    )


def test_images_of_another_size_come_back_in_theirs(tmp_path):
    images, truth = red_squares(1)
    large = images.repeat_interleave(4, 2).repeat_interleave(6, 3)
    path = small.save_onnx(tmp_path / "a.onnx", gain=9.0)
    mask = mask_maker(f"onnx:{path}", **UNITS)(large, Hints.none(1)).mask[0]
    assert mask.shape == (64, 96)
    wanted = truth[0].repeat_interleave(4, 0).repeat_interleave(6, 1) > 0
    assert ((mask > 0.5) & wanted).sum() / ((mask > 0.5) | wanted).sum() > 0.85
    free = small.save_onnx(tmp_path / "b.onnx", size="s", gain=9.0)
    torch.testing.assert_close(mask_maker(f"onnx:{free}", size=16, **UNITS)(large, Hints.none(1)).mask[0], mask)


def test_what_does_not_fit(tmp_path):
    path = small.save_onnx(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError, match="--with onnx:nowhere.onnx: there is no such file"):
        mask_maker("onnx:nowhere.onnx", **UNITS)
    with pytest.raises(ValueError, match=r"expected --mean and --std, which a file does not say"):
        mask_maker(f"onnx:{path}")
    with pytest.raises(ValueError, match=r"mean, std: expected both or none"):
        mask_maker(f"onnx:{path}", mean=[0.5])
    with pytest.raises(
        ValueError, match=r"--size: expected \(16, 16\), which onnx:a.onnx .* takes alone, got \(32, 32\)"
    ):
        mask_maker(f"onnx:{path}", size=32, **UNITS)
    free = small.save_onnx(tmp_path / "free.onnx", size="s")
    with pytest.raises(ValueError, match="takes images of any size; say with --size which it was trained on"):
        mask_maker(f"onnx:{free}", **UNITS)
    two = small.save_onnx(tmp_path / "two.onnx", channels=2)
    with pytest.raises(MaskMakingError, match=r"expected an output \(B, 1, H, W\), got red \[1, 2, 16, 16\]"):
        mask_maker(f"onnx:{two}", **UNITS)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="text.onnx: cannot be loaded"):
        mask_maker(f"onnx:{tmp_path / 'text.onnx'}", **UNITS)


def test_rembg_with_a_file_of_ones_own(tmp_path, monkeypatch):
    """Its own session and preparation: resized to 320, normalised; min and max are 0 and 1."""
    pytest.importorskip("rembg")
    monkeypatch.setenv("REMBG_HOME", str(tmp_path))  # it takes files of there alone
    path = small.save_onnx(tmp_path / "a.onnx", size=320)
    images, truth = red_squares(2, 32)
    maker = mask_maker("rembg:u2net_custom", checkpoint=path)
    outcome = maker(images, Hints.none(2))
    overlap = ((outcome.mask > 0.5) & (truth > 0)).sum() / ((outcome.mask > 0.5) | (truth > 0)).sum()
    assert outcome.mask.shape == (2, 32, 32)
    assert overlap > 0.8
    with pytest.raises(ValueError, match="expected --checkpoint FILE with u2net_custom"):
        mask_maker("rembg:u2net_custom")
    with pytest.raises(ValueError, match="unheard"):
        mask_maker("rembg:unheard")
