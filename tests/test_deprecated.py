"""Old names: they work, they say what to write instead and until when, and nothing else changes."""

from __future__ import annotations

import inspect
import warnings

import pytest

from torch_bgdebias._deprecated import REMOVED_IN, renamed_arguments, warn_renamed
from torch_bgdebias._version import __version__


@renamed_arguments(num_classes="classes")
def count(first: int, classes: int = 2) -> tuple[int, int]:
    """Count."""
    return first, classes


class Counter:
    @renamed_arguments(start="first", num_classes="classes")
    def __init__(self, first: int, classes: int = 2) -> None:
        self.first, self.classes = first, classes


def test_the_new_name_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count(1, 3) == count(1, classes=3) == (1, 3)
        assert count(1) == (1, 2)


def test_the_old_name_works_and_warns_once():
    with pytest.warns(DeprecationWarning, match=" is now ") as caught:
        assert count(1, num_classes=3) == (1, 3)
    assert [str(w.message) for w in caught] == [
        f"count(num_classes=...) is now count(classes=...); the old name goes in torch_bgdebias {REMOVED_IN}"
    ]
    assert caught[0].filename == __file__


def test_constructors_are_named_after_their_class():
    with pytest.warns(DeprecationWarning, match=" is now ") as caught:
        counter = Counter(start=4, num_classes=5)
    assert (counter.first, counter.classes) == (4, 5)
    assert [str(w.message).split(" is now")[0] for w in caught] == ["Counter(start=...)", "Counter(num_classes=...)"]
    assert {w.filename for w in caught} == {__file__}


def test_both_names_are_an_error():
    with pytest.raises(TypeError, match="count: expected classes alone, got classes and its old name num_classes"):
        count(1, classes=2, num_classes=3)


def test_the_signature_shows_the_new_names():
    assert list(inspect.signature(count).parameters) == ["first", "classes"]
    assert inspect.getdoc(count) == "Count."
    with pytest.raises(TypeError, match="unexpected keyword argument 'klasses'"):
        count(1, klasses=2)


def test_the_release_lies_ahead():
    def numbers(version):
        return tuple(int(part) for part in version.split("."))

    assert numbers(__version__) < numbers(REMOVED_IN)


def test_the_warning_points_at_the_caller():
    def renamed():
        warn_renamed("old", "new")

    with pytest.warns(DeprecationWarning, match="^old is now new; ") as caught:
        renamed()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["BackgroundBank", "generate_backgrounds", "screen"])
def test_names_that_another_face_shows_now(name):
    from torch_bgdebias import backgrounds, swap

    with pytest.warns(DeprecationWarning, match=f"torch_bgdebias.swap.{name} is now torch_bgdebias.backgrounds.{name}"):
        assert getattr(swap, name) is getattr(backgrounds, name)
    assert name not in swap.__all__
    assert name not in dir(swap)
