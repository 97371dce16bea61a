"""Classes by index, name and WordNet id."""

from __future__ import annotations

import pytest

from torch_bgdebias.backgrounds.screening.classes import ClassNames


def test_imagenet_classes_by_index_name_and_wordnet_id():
    names = ClassNames(1000)
    assert names.find([9, "ostrich", "Struthio camelus", "n01518878", "Great_White  shark"]) == [9, 2]
    assert names[2] == "great white shark"
    with pytest.raises(KeyError, match=r"'crane' is the name of 2 classes.*n02012849 .*n03126707"):
        names.find(["crane"])
    with pytest.raises(KeyError, match=r"no class is called 'ostritch'; near names: .*ostrich"):
        names.find(["ostritch"])
    with pytest.raises(KeyError, match=r"no class is called 'terrier'; near names: .*terrier"):
        names.find(["terrier"])
    with pytest.raises(KeyError, match=r"expected a class in \[0, 999\], got 1000"):
        names.find([1000])
    with pytest.raises(KeyError, match="WordNet id n00000001 is none of the classifier's 1000 classes"):
        names.find(["n00000001"])
    with pytest.raises(TypeError, match="expected a list of classes, got the text 'ostrich'"):
        names.find("ostrich")
    with pytest.raises(KeyError, match="the names of the 4 outputs are not known: pass class_names"):
        ClassNames(4).find(["square"])
    with pytest.raises(ValueError, match="class_names: expected 3, one an output, got 2"):
        ClassNames(3, ["a", "b"])


def test_the_first_output_is_a_class():
    assert ClassNames(3).find([0, 2, 0]) == [0, 2]
    with pytest.raises(KeyError, match=r"expected a class in \[0, 2\], got -1"):
        ClassNames(3).find([-1])
