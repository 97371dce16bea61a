from __future__ import annotations

import dataclasses
from collections import namedtuple

import pytest
import torch

from torch_bgdebias.batch import BatchSpec

IMAGE, LABEL, MASK = torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.ones(2, 1, 4, 4)
Named = namedtuple("Named", ["image", "label", "mask"])


@dataclasses.dataclass
class Record:
    image: torch.Tensor
    label: torch.Tensor
    mask: torch.Tensor


KEYS = BatchSpec(image="image", label="label", mask="mask")


@pytest.mark.parametrize(
    ("batch", "spec"),
    [
        ((IMAGE, LABEL, MASK), BatchSpec()),
        ([IMAGE, LABEL, MASK], BatchSpec()),
        ({"image": IMAGE, "label": LABEL, "mask": MASK}, KEYS),
        (Named(IMAGE, LABEL, MASK), BatchSpec()),
        (Named(IMAGE, LABEL, MASK), KEYS),
        (Record(IMAGE, LABEL, MASK), KEYS),
    ],
)
def test_batches_keep_their_type_and_the_original(batch, spec):
    new = spec.replace(batch, image=IMAGE * 0, label=LABEL + 5)
    assert type(new) is type(batch)
    assert spec.image_of(new).sum() == 0
    assert spec.label_of(new).tolist() == [5, 6]
    assert spec.mask_of(new) is MASK
    assert spec.image_of(batch) is IMAGE
    assert spec.background_label_of(batch) is None


def test_missing_fields_say_what_is_there():
    with pytest.raises(KeyError, match=r"no mask at 2.*2 item\(s\).*BatchSpec\(mask=...\)"):
        BatchSpec().mask_of((IMAGE, LABEL))
    with pytest.raises(KeyError, match=r"no image at 'image'; it holds keys \['pixels'\]"):
        KEYS.image_of({"pixels": IMAGE})
    with pytest.raises(KeyError, match="BatchSpec has no place for 'background_label'"):
        BatchSpec().replace((IMAGE, LABEL, MASK), background_label=LABEL)
    with pytest.raises(KeyError, match="no mask at"):
        BatchSpec().replace((IMAGE, LABEL), mask=MASK)
    with pytest.raises(TypeError, match=r"batch\[1\] \(label\): expected a tensor, got str"):
        BatchSpec().label_of((IMAGE, "cat"))


def test_a_place_that_is_no_tensor_names_the_way_further_in():
    batch = {"labelled": [torch.zeros(2, 3, 4, 4), torch.zeros(2)]}
    with pytest.raises(
        TypeError, match=r"got list; a path leads further in, such as BatchSpec\(image=\('labelled', 0\)"
    ):
        BatchSpec(image="labelled").image_of(batch)
    assert BatchSpec(image=("labelled", 0)).image_of(batch).shape == (2, 3, 4, 4)
