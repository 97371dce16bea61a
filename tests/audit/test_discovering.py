"""A network that was taught a mark: the marked pictures are the first group; the network is given back as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hostile import HOSTILE
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from torch_bgdebias.audit import discover
from torch_bgdebias.audit.backbone import layer_input
from torch_bgdebias.audit.discovery import Discovery
from torch_bgdebias.preprocessing import Preprocessing

pytest.importorskip("sklearn")
SIDE = 16


class ReadsMark(nn.Module):
    """Class 1 by the brightness of the top left corner, both by that of the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.fc = nn.Flatten(), nn.Linear(SIDE * SIDE, 2, bias=False)
        weight = torch.zeros(2, SIDE, SIDE)
        weight[:, 5:11, 5:11] = 0.2
        weight[1, :3, :3] = 1.0
        self.fc.weight.data = weight.flatten(1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flatten(image))


@pytest.fixture
def data():
    drawn = torch.Generator().manual_seed(0)
    image = torch.rand(80, 1, SIDE, SIDE, generator=drawn)
    image[:, :, :3, :3] = 0
    image[40:55, :, :3, :3] = 1
    return TensorDataset(image, torch.arange(80) // 40)


def gradient(model, data, **more):
    return discover(model, data, preprocessing=Preprocessing(channels=1), attribution="lrp", **more)


def test_marked_pictures_come_first_and_the_model_stays(data):
    pytest.importorskip("zennit")
    model = ReadsMark().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    discovery = gradient(model, data)
    assert set(discovery.pictures(0, 15).tolist()) == set(range(40, 55))
    assert set(discovery.pictures().tolist()) <= set(range(40, 55))  # no more than the group has
    assert discovery.clusters[0].label == 1
    assert "top left" in discovery.summary().splitlines()[1]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.fc._forward_hooks


def test_a_wrapped_network_is_the_network(data):
    """``nn.DataParallel`` calls its layers by longer names, and on several devices copies of them."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2)]
    model = nn.Sequential(*layers)
    plain, wrapped = (
        discover(each, data, preprocessing=Preprocessing(channels=1), attribution="grad_cam")
        for each in (model, nn.DataParallel(model))
    )
    assert plain.summary() == wrapped.summary()
    assert [group.suspicion for group in plain.clusters] == [group.suspicion for group in wrapped.clusters]


def test_page_and_json(data, tmp_path):
    pytest.importorskip("zennit")
    discovery = gradient(ReadsMark(), data)
    named = Discovery(**{**vars(discovery), "classes": tuple(HOSTILE[:2]), "names": [HOSTILE[3]] * 80})
    named.to_html(tmp_path / "a.html", title=HOSTILE[0])
    page = (tmp_path / "a.html").read_text()
    assert page.count("<script>") == 1
    assert "hacked()" in page
    named.to_json(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["schema"] == "torch_bgdebias.discovery/1"
    assert content["clusters"][0]["suspicion"] == discovery.clusters[0].suspicion


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"attribution": "magic"}, ValueError, "attribution: expected one of 'auto', 'lrp', 'grad_cam', got 'magic'"),
        ({"attribution": "lrp", "layer": "fc"}, ValueError, "layer: expected none with attribution='lrp'"),
        ({"images": 3}, ValueError, "images: expected a whole number of at least 20"),
    ],
)
def test_refused_options(data, change, error, text):
    with pytest.raises(error, match=text):
        discover(ReadsMark(), data, **change)


def test_too_few_pictures_and_several_sizes():
    few = [(torch.rand(1, SIDE, SIDE), 0)] * 10
    with pytest.raises(ValueError, match="expected at least 20 pictures of a class, got 10"):
        gradient(ReadsMark(), few)
    mixed = [(torch.rand(1, SIDE + n % 2, SIDE), 0) for n in range(30)]
    with pytest.raises(ValueError, match="preprocessing: expected a size for images of several sizes"):
        gradient(ReadsMark(), mixed)


def test_grad_cam_where_a_layer_is_named(data):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2)]
    discovery = discover(nn.Sequential(*layers), data, preprocessing=Preprocessing(channels=1), layer="0")
    assert discovery.method == "Grad-CAM"
    assert len(discovery.labels) == 80
    assert np.isfinite([group.suspicion for group in discovery.clusters]).all()


class TwoViews(nn.Module):
    """One head on two views of an image, whose answers are averaged: no call of it is the network's embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, second = (self.head(self.conv(view).mean((2, 3))) for view in (image, image.flip(3)))
        return (first + second) / 2


class Auxiliary(nn.Sequential):
    """A network whose last linear layer, by the order of its parts, does not run in evaluation."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2))
        self.auxiliary = nn.Linear(4, 7)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for part in list(self)[:5]:
            image = part(image)
        return image


def test_the_embedding_is_of_the_one_call_that_the_output_comes_from(data):
    with pytest.raises(ValueError, match="layer 'head': expected one call whose output the model returns, got 2"):
        layer_input(TwoViews(), "head", torch.rand(2, 1, 8, 8))
    assert layer_input(ReadsMark(), "fc", torch.rand(2, 1, SIDE, SIDE)).shape == (2, SIDE * SIDE)
    discovery = discover(Auxiliary(), data, preprocessing=Preprocessing(channels=1), layer="0")
    assert len(discovery.labels) == 80


def test_a_folder_of_numbers_says_in_which_order_they_are_taken(tmp_path):
    drawn = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        (tmp_path / name).mkdir()
        for number in range(20):
            picture = Image.fromarray(drawn.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
            picture.save(tmp_path / name / f"{number}.png")
    (tmp_path / "1" / "x.heic").write_bytes(b"0")
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with pytest.warns(UserWarning, match="the classes are numbers and are taken in their order, 1, 2, 10") as warned:
        discovery = discover(network, tmp_path, preprocessing=Preprocessing(SIDE, channels=1), layer="0")
    assert discovery.classes == ("1", "2", "10")
    assert any(
        "1 files of formats that are not read were passed over (.heic: x.heic)" in str(w.message) for w in warned
    )
