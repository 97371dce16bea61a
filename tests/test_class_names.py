"""The names of the classes are those of the labels that come out of a data set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from torch_bgdebias.class_names import names_of_classes, names_of_outputs, names_within, require_same_order
from torch_bgdebias.data import EXAMPLE_CLASSES, MaskedImageFolder, example_folder


class Labelled(Dataset):
    """As torchvision's data sets: classes in the folder's order, labels as a function says."""

    def __init__(self, classes, target_transform=None):
        self.classes, self.target_transform = classes, target_transform

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        return torch.zeros(3, 4, 4), self.target_transform(index) if self.target_transform else index


def named(dataset, count=3, given=None):
    return names_of_classes(given, DataLoader(dataset, 2), count)


def test_names_come_through_subsets(tmp_path):
    data = MaskedImageFolder(example_folder(tmp_path, images_per_class=2), size=8)
    assert named(Subset(Subset(data, range(6)), [0, 2, 4])) == list(EXAMPLE_CLASSES)
    assert named(TensorDataset(torch.zeros(2, 3))) == ["0", "1", "2"]
    assert named(data, count=4) == ["0", "1", "2", "3"]


def test_names_go_with_labels_that_are_mapped():
    data = Labelled(["cat", "cow", "dog"], {0: 2, 1: 0, 2: 1}.__getitem__)
    names = named(Subset(data, [0, 1]))
    assert names == ["cow", "dog", "cat"]
    assert [names[data[index][1]] for index in range(3)] == data.classes


@pytest.mark.parametrize("transform", [lambda label: label // 2, lambda label: label + 1, str.upper])
def test_names_are_numbers_where_labels_are_no_order_of_the_classes(transform):
    assert named(Labelled(["cat", "cow", "dog"], transform)) == ["0", "1", "2"]


def test_names_of_joined_data_sets_are_those_on_which_they_agree():
    cats, other = Labelled(["cat", "cow", "dog"]), Labelled(["car", "cow", "dog"])
    assert named(ConcatDataset([cats, Subset(cats, [0])])) == ["cat", "cow", "dog"]
    assert named(ConcatDataset([cats, other])) == ["0", "1", "2"]


def test_names_given_are_as_many_as_outputs():
    assert named(Labelled(["a", "b", "c"]), given=["x", "y", "z"]) == ["x", "y", "z"]
    with pytest.raises(ValueError, match="class_names: expected 3 names, one per output of the model, got 2"):
        named(Labelled(["a", "b", "c"]), given=["x", "y"])


def test_classes_of_one_name_are_told_apart_by_their_numbers():
    assert named(Labelled(["crane", "cow", "crane"])) == ["crane (0)", "cow", "crane (2)"]
    assert named(Labelled(["a", "b", "c"]), given=["x", "x", "z"]) == ["x (0)", "x (1)", "z"]


@pytest.mark.parametrize(
    "settings",
    [
        {"class_names": ["cat", "dog"]},
        {"hparams": {"classes": ("cat", "dog"), "lr": 0.1}},
        {"class_to_idx": {"dog": 1, "cat": 0}},
        {"idx_to_class": {1: "dog", 0: "cat"}, "num_classes": 2},
        {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}},
    ],
)
def test_names_are_read_from_settings(settings):
    assert set(names_within(settings).values()) == {("cat", "dog")}


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": 2},
        {"classes": ["0", "1"]},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"class_to_idx": {"cat": 1, "dog": 2}},
        {"classes": ["cat"]},
        {"names": {"class_names": {"a": {"b": ["cat", "dog"]}}}},
        {"classes": {"cat": "dog"}},
    ],
)
def test_what_is_no_order_of_names_is_passed_over(settings):
    assert names_within(settings) == {}


def network(**attributes):
    model = nn.Linear(2, 3)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def test_a_model_says_what_its_outputs_are_called():
    names = ("dog", "cat", "cow")
    assert names_of_outputs(network(config=SimpleNamespace(id2label=dict(enumerate(names))))) == (
        "config.id2label",
        names,
    )
    assert names_of_outputs(nn.DataParallel(network(hparams={"data": {"classes": list(names)}})))[1] == names
    assert names_of_outputs(network(classes=list(names), class_names=["a", "b", "c"])) is None
    assert names_of_outputs(network()) is None


def test_the_same_names_in_another_order_are_refused():
    model = network(class_names=["Dog", "polar_bear", "cow"])
    text = r"classes are cow, dog, polar bear, \.\.\. .* outputs Dog, .* \(class_names\).*output\[:, \[2, 0, 1\]\]"
    with pytest.raises(ValueError, match=text):
        require_same_order(model, ["cow", "dog", "polar bear"])
    for names in (["dog", "polar bear", "cow"], ["cow", "dog", "emu"], []):
        require_same_order(model, names)
