"""Masked data from items of other data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from torch_bgdebias import evaluate_background_bias
from torch_bgdebias.data import ItemReader, MaskedItems, MaskedStream, example_loader


def items(count: int = 30) -> list[dict[str, object]]:
    """The drawn shapes as a data set of dicts with pictures of Pillow."""
    data = example_loader(images_per_class=count // 3, size=32).dataset
    rows = []
    for image, label, mask in (data[i] for i in range(len(data))):
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        cover = Image.fromarray((mask[0] > 0.5).byte().mul(255).numpy())
        rows.append({"image": picture, "label": int(label), "mask": cover})
    return rows


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def test_pictures_come_back_as_they_went_in() -> None:
    data = example_loader(images_per_class=10, size=32).dataset
    read = MaskedItems(items(), ItemReader(32))
    assert len(read) == len(data)
    for i in range(len(data)):
        image, label, mask = read[i]
        assert torch.allclose(image, data[i][0], atol=0.5 / 255 + 1e-6)
        assert (label, type(label)) == (int(data[i][1]), int)
        assert torch.equal(mask, (data[i][2] > 0.5).float())


def test_streams_and_data_sets_are_measured_alike() -> None:
    reader = ItemReader(32)
    reports = [
        evaluate_background_bias(network(), DataLoader(data, batch_size=10))
        for data in (MaskedItems(items(), reader), MaskedStream(items(), reader))
    ]
    assert reports[0].bg_gap == reports[1].bg_gap
    assert (reports[0].images.id == reports[1].images.id).all()


def test_of_huggingface_and_back() -> None:
    datasets = pytest.importorskip("datasets")
    rows = items(6)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int64"), "mask": datasets.Image()}
    )
    table = datasets.Dataset.from_list(rows, features=features)
    for (image, label, mask), (image2, label2, mask2) in zip(
        MaskedItems(rows, ItemReader(32)), MaskedItems(table, ItemReader(32)), strict=True
    ):
        assert torch.equal(image, image2)
        assert torch.equal(mask, mask2)
        assert label == label2


def test_of_webdataset_and_back(tmp_path) -> None:
    webdataset = pytest.importorskip("webdataset")
    rows = items(6)
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for number, row in enumerate(rows):
            sink.write({"__key__": f"{number}", "png": row["image"], "cls": row["label"], "mask.png": row["mask"]})
    stream = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode("pil")
    read = list(MaskedStream(stream, ItemReader(32, image="png", label="cls", mask="mask.png")))
    for one, two in zip(read, MaskedItems(rows, ItemReader(32)), strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[2], two[2])


@pytest.mark.parametrize("mode", ["1", "L", "P", "I", "RGB", "LA", "RGBA", "CMYK"])
def test_masks_of_any_mode(mode: str) -> None:
    values = np.zeros((4, 4), np.uint8)
    values[1:3, 1:3] = 255
    item = {"image": np.zeros((4, 4, 3), np.uint8), "label": 0, "mask": Image.fromarray(values).convert(mode)}
    assert torch.equal(ItemReader(4)(item, 0)[2], torch.from_numpy(values)[None] / 255)


def test_a_mask_may_be_the_transparency() -> None:
    cutout = Image.new("RGBA", (4, 4), (200, 30, 30, 0))
    cutout.paste((10, 90, 10, 255), (1, 1, 3, 3))
    item = {"image": np.zeros((4, 4, 3), np.uint8), "label": 0, "mask": cutout}
    assert torch.equal(ItemReader(4)(item, 0)[2], F.pad(torch.ones(1, 2, 2), (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("values", "foreground", "expected"),
    [
        ([[0, 1], [1, 0]], None, [[0, 1], [1, 0]]),
        ([[0, 255], [0, 0]], None, [[0, 1], [0, 0]]),
        ([[0, 3], [7, 255]], [3, 7], [[0, 1], [1, 0]]),
        ([[5, 5], [5, 5]], None, [[1, 1], [1, 1]]),
    ],
)
def test_values_of_a_mask(values, foreground, expected) -> None:
    item = {"image": np.zeros((2, 2, 3), np.uint8), "label": 0, "mask": np.array(values, np.uint8)}
    mask = MaskedItems([item], ItemReader(2, foreground=foreground))[0][2]
    assert mask[0].tolist() == expected


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mask": np.array([[0, 3], [7, 255]], np.uint8)}, r"its values 0, 3, 7, 255 do not say .* foreground=\[...\]"),
        ({"mask": np.zeros((3, 2), np.uint8)}, r"mask of item 0: expected the picture's size \(2, 2\), got \(2, 3\)"),
        ({"label": "cat"}, "label of item 0: expected a whole number or one of dog"),
    ],
)
def test_what_is_not_clear_is_refused(change, text) -> None:
    item = {"image": np.zeros((2, 2, 3), np.uint8), "label": "dog", "mask": np.eye(2, dtype=bool)} | change
    with pytest.raises(ValueError, match=text):
        MaskedItems([item], ItemReader(2, classes=["dog"]))[0]


def test_pictures_of_more_than_8_bits_are_refused() -> None:
    """Pillow makes white of all above 255, which is most of a picture of 12 bits."""
    item = {"image": Image.fromarray(np.full((2, 2), 3000, np.uint16)), "label": 0, "mask": np.eye(2, dtype=bool)}
    with pytest.raises(TypeError, match=r"image of item 0: expected a picture of 8 bits a channel, got mode 'I;16'"):
        ItemReader(2)(item, 0)


def test_an_iterator_is_no_stream() -> None:
    with pytest.raises(TypeError, match="items: expected an iterable that starts again"):
        MaskedStream(iter([]), ItemReader(2))
