"""What a step's tensors are made of is followed through its operations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from torch_bgdebias.probe.passes.operations import Operation
from torch_bgdebias.probe.passes.origins import Margin, Origins

aten = torch.ops.aten
B, K = 6, 4


def operation(packet, *args) -> Operation:
    return Operation(SimpleNamespace(overloadpacket=packet), args, {})


def followed(origins: Origins, packet, *args, mixed: bool = False):
    result = packet(*args)
    origins.follow(operation(packet, *args), result, mixed=mixed)
    return result


def test_answers_stay_answers_until_labels_meet_them() -> None:
    origins, z, y = Origins(B), torch.randn(B, K), torch.arange(B) % K
    origins.answered({"logits": z, "names": ["a"]})
    winners = followed(origins, aten.argmax, z, 1)
    assert origins.of(z) == origins.of(winners)
    assert origins.of(winners).answer
    hits = followed(origins, aten.eq, winners, y, mixed=True)
    assert origins.of(hits).mixed
    assert origins.of(followed(origins, aten._to_copy, hits)).mixed
    assert not origins.of(y).answer
    assert origins.of(torch.rand(2, 3, 4, 4)).answer  # a picture


def test_changes_of_labels_are_counted() -> None:
    origins, y = Origins(B), torch.arange(B) % 2
    float_y = followed(origins, aten._to_copy, y)
    assert origins.of(float_y).changes == 0
    assert origins.of(float_y).root is y
    flipped = followed(origins, aten.rsub, float_y, 1)
    back = followed(origins, aten.rsub, flipped, 1)
    assert [origins.of(x).changes for x in (y, float_y, flipped, back)] == [0, 0, 1, 2]
    assert origins.of(back).root is y


def test_questions_about_classes_know_what_they_ask() -> None:
    origins, y = Origins(B), torch.arange(B) % K
    of_two = followed(origins, aten.eq, y, 2)
    not_of_two = followed(origins, aten.logical_not, of_two)
    for question in (origins.of(of_two).question, origins.of(not_of_two).question):
        assert question.classes is y
        assert (question.test, question.value) == (aten.eq, 2)
    numbers = followed(origins, aten._to_copy, of_two)
    assert origins.of(numbers).changes == 1
    flags = (y > 1).bool()
    assert origins.of(followed(origins, aten.bitwise_not, flags)).question.classes is flags


def test_a_class_to_ask_for_may_be_a_tensor_on_either_side() -> None:
    origins, y, two = Origins(B), torch.arange(B) % K, torch.tensor(2)
    questions = [origins.of(followed(origins, aten.eq, *sides)).question for sides in ((y, two), (two, y))]
    assert [question.classes is y for question in questions] == [True, True]
    assert questions[0].same_as(questions[1])
    for other in (followed(origins, aten.eq, y, 2), followed(origins, aten.eq, y, torch.tensor(2))):
        assert not questions[0].same_as(origins.of(other).question)
    assert origins.of(followed(origins, aten.eq, y, y)).question is None


@pytest.mark.parametrize("sign", [1, -1])
def test_which_way_a_loss_of_a_margin_goes(sign: int) -> None:
    """``sign`` is that of the margin in what the loss is taken of."""

    def falls(*steps, z_sign: int = 1) -> bool | None:
        origins, z, margin = Origins(B), torch.randn(B), Margin()
        origins.answered(z)
        if z_sign < 0:
            z = followed(origins, aten.neg, z)
        value = aten.mul(z, torch.ones(B))
        origins.follow(operation(aten.mul, z), value, mixed=True, margin=margin)
        for packet, *rest in steps:
            value = followed(origins, packet, value, *rest)
        return margin.falls

    turn = [] if sign > 0 else [(aten.neg,)]
    for loss in ((aten.softplus,), (aten.exp,), (aten.relu,), (aten.clamp_min, 0), (aten.clamp, 0)):
        assert falls(*turn, loss) == (sign < 0)
        assert falls((aten.rsub, 1), *turn, loss) == (sign > 0)
        assert falls((aten.mul, -2.0), (aten.add, 1), (aten.view, (B, 1)), *turn, loss) == (sign > 0)
        assert falls(*turn, loss, z_sign=-1) == (sign > 0)
    assert falls(*turn, (aten.log_sigmoid,)) == (sign > 0)
    assert falls(*turn, (aten.clamp, -1, 1)) is None
    assert falls(*turn, (aten.abs,), (aten.softplus,)) is None


def test_tables_of_another_size_are_not_held() -> None:
    origins = Origins(B)
    assert not origins.knows(followed(origins, aten.mul, torch.rand(B + 1, K), 2))
    assert origins.knows(followed(origins, aten.sum, torch.arange(B)))
    assert origins.knows(followed(origins, aten.add, torch.arange(B), 1))
