"""Labels are read in whatever form answers meet them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from torch_bgdebias.probe.passes.label_agreement import Agreement, Agreements, MetLabels
from torch_bgdebias.probe.passes.origins import Origin

B, K = 12, 5
Y, TWO = torch.arange(B) % K, torch.arange(B) % 2

#: a form -> labels of it
FORMS = {
    "classes": lambda y: y,
    "a column": lambda y: y[:, None],
    "a row": lambda y: y[None],
    "rows": lambda y: y[None].expand(3, B),
    "columns": lambda y: y[:, None].expand(B, 3),
    "bytes": lambda y: y.byte(),
    "floats": lambda y: y.double(),
    "one-hot": lambda y: F.one_hot(y, K),
    "one-hot bools": lambda y: F.one_hot(y, K).bool(),
    "smoothed": lambda y: 0.9 * F.one_hot(y, K) + 0.02,
    "places in a table of hits": lambda y: y * K,
}
#: of two classes
FORMS_OF_TWO = {
    "bools": lambda y: y.bool(),
    "smoothed shares": lambda y: 0.8 * y + 0.1,
    "signs": lambda y: 2 * y - 1,
    "signs in floats": lambda y: 2.0 * y - 1,
}


def verdict(agreement: Agreement | None) -> str:
    if agreement is None:
        return "nothing"
    said = [name for name, flag in zip(("seen", "other", "changed"), agreement, strict=True) if bool(flag)]
    return " ".join(said)


def met(value: torch.Tensor, label: torch.Tensor, **options) -> str:
    labels = MetLabels(B)
    assert labels.could_be(value)
    labels.meet(value, Origin(), columns=K, **options)
    return verdict(labels.agree(label))


@pytest.mark.parametrize("name", [*FORMS, *FORMS_OF_TWO])
def test_forms(name: str) -> None:
    form, y = ({**FORMS, **FORMS_OF_TWO})[name], TWO if name in FORMS_OF_TWO else Y
    assert met(form(y), y) == "seen"
    assert met(form(y.roll(1)), y) == "seen other"


def test_what_may_be_no_labels_at_all_contradicts_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(B, generator=generator), torch.rand(B, K, generator=generator), torch.ones(B)]
    for value in (*noise, torch.ones(B, dtype=torch.bool), torch.eye(B)[:, :B]):
        assert met(value, Y) == ""
    assert met(TWO.bool(), Y, picks_images=True) == ""
    assert met(TWO.bool(), TWO, picks_images=True) == "seen"
    assert not MetLabels(B).could_be(torch.rand(B + 1))
    assert not MetLabels(B).could_be(torch.rand(3, B))
    assert not MetLabels(B).could_be(torch.tensor(1))
    assert met(torch.full((B,), float("inf")), Y) == ""


def test_what_cannot_be_read_is_no_labels() -> None:
    for size in (0, B):
        assert not MetLabels(size).could_be(torch.ones(size, 0))
        assert not MetLabels(size).could_be(torch.ones(size, dtype=torch.long).unsqueeze(1).expand(size, 0))
    assert not MetLabels(0).could_be(torch.ones(0, K))
    assert not MetLabels(B).could_be(torch.eye(B).to_sparse())
    assert not MetLabels(B).could_be(torch.ones(B, dtype=torch.complex64))


def test_of_labels_in_bytes_a_table_of_hits_is_read_as_well() -> None:
    assert met(Y * 50 * 100, (Y * 50).byte()) == "seen"


def test_those_that_were_changed_least_count() -> None:
    labels = MetLabels(B)
    labels.meet(1 - TWO, Origin(changes=1, root=TWO), columns=1)
    labels.meet(1 - (1 - TWO), Origin(changes=2, root=TWO), columns=1)
    assert verdict(labels.agree(TWO)) == "seen other"
    labels.meet(TWO, Origin(), columns=1)
    assert verdict(labels.agree(TWO)) == "seen"
    places = torch.arange(B)  # numbers of something else
    beside = MetLabels(B)
    beside.meet(places, Origin(), columns=1)
    assert verdict(beside.agree(TWO)) == "seen other"
    beside.meet(Y % 2 * 0 + TWO, Origin(changes=1, root=Y), columns=1)
    assert verdict(beside.agree(TWO)) == "seen"
    unsure = MetLabels(B)
    unsure.meet(torch.rand(B), Origin(changes=0, root=Y), columns=1)
    unsure.meet(Y + 1, Origin(changes=1, root=Y), columns=1)
    assert verdict(unsure.agree(Y)) == "seen other"


def test_shares_that_a_loss_was_given_are_labels() -> None:
    shares = F.one_hot(Y, K) * 0.6 + torch.rand(B, K, generator=torch.Generator().manual_seed(0)) * 0.1
    assert met(shares, Y.roll(1)) == ""
    assert met(shares, Y.roll(1), of_loss=True) == "seen other"
    assert met(shares, Y, of_loss=True) == met(shares, Y) == "seen"


def test_sets_of_labels() -> None:
    sets = (torch.rand(B, K, generator=torch.Generator().manual_seed(1)) > 0.5).long()
    for form in (sets, sets.float(), sets.bool(), 2 * sets - 1, 0.9 * sets + 0.05):
        for given, said in ((form, "seen"), (form.roll(1, 1), "seen other")):
            labels = MetLabels(B, sets=True)
            labels.meet(given, Origin(), columns=K)
            assert verdict(labels.agree(sets)) == said


def test_labels_that_were_changed_and_never_met() -> None:
    assert MetLabels(B).agree(Y) is None
    labels = MetLabels(B)
    labels.change((Y + 1) % K, Y)
    assert verdict(labels.agree(Y)) == "changed"
    assert verdict(labels.agree((Y + 1) % K)) == ""
    labels.meet(Y, Origin(), columns=K)
    assert verdict(labels.agree(Y)) == "seen"
    counted = MetLabels(B)
    counted.change(Y * K, Y)
    assert verdict(counted.agree(Y)) == ""


def test_batches_of_one_image_and_of_one_class() -> None:
    one = MetLabels(1)
    one.meet(torch.tensor([3]), Origin(), columns=K)
    assert verdict(one.agree(torch.tensor([3]))) == "seen"
    assert verdict(one.agree(torch.tensor([2]))) == "seen other"
    same = torch.full((B,), 3)
    assert met(same, same) == "seen"
    assert met(same + 1, same) == "seen other"
    assert met(torch.zeros(B, dtype=torch.long), same) == ""  # may be anything


def test_what_many_steps_say() -> None:
    def flags(*values: bool) -> Agreement:
        return Agreement(*map(torch.tensor, values))

    many = Agreements()
    assert (many.unseen, many.other, many.changed) == ("", False, False)
    many.add(flags(True, False, False), predicted=True)
    assert (many.unseen, many.other, many.changed) == ("", False, False)
    many.add(flags(False, False, True))
    assert (many.unseen, many.other, many.changed) == ("unseen", False, True)
    many.add(flags(True, True, False))
    assert many.other
    many.add(flags(False, False, False), predicted=True)
    assert many.unseen == "elsewhere"
    for predicted, said in ((False, "unseen"), (True, "elsewhere")):
        none = Agreements()
        none.add(None, predicted=predicted)
        assert none.unseen == said
