"""Fields of files that anybody may have written: errors name the field, and memory is bounded."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest

from torch_bgdebias.records import Record, Unpacker, parse_json


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda r: r.text("gone"), KeyError, "gone"),
        (lambda r: r.record("inner").whole("gone"), KeyError, "inner.gone"),
        (lambda r: r.text("n"), ValueError, "^n: expected a text, got 3$"),
        (lambda r: r.whole("yes"), ValueError, r"^yes: expected a whole number in .*, got True$"),
        (lambda r: r.whole("half"), ValueError, r"got 0.5$"),
        (lambda r: r.whole("huge"), ValueError, r"got a huge number$"),
        (lambda r: r.number("inf"), ValueError, "^inf: expected a finite number or null, got inf$"),
        (lambda r: r.number("huge"), ValueError, "got a huge number$"),
        (lambda r: r.record("n"), ValueError, "^n: expected named fields, got 3$"),
        (lambda r: r.records("mixed"), ValueError, r"^mixed\[0\]: expected named fields, got 1$"),
        (lambda r: r.texts("mixed"), ValueError, r"^mixed\[0\]: expected a text, got 1$"),
        (lambda r: r.texts("n"), ValueError, "^n: expected a list, got 3$"),
        (lambda r: r.array("mixed", np.int64), ValueError, r"^mixed\[1\]: expected a whole number, got 'a'$"),
        (lambda r: r.array("mixed", np.float32), ValueError, r"^mixed\[1\]: expected a number or null, got 'a'$"),
        (lambda r: r.array("minus", np.uint64), ValueError, r"^minus\[0\]: expected a finite uint64, got -1$"),
        (lambda r: r.array("large", np.float32), ValueError, r"^large\[0\]: expected a finite float32, got 1e\+300$"),
        (lambda r: r.array("fraction", np.int64), ValueError, r"^fraction\[0\]: expected a whole number, got 1.5$"),
        (lambda _: Record([1]), ValueError, "^content: expected named fields, got a list$"),
        (lambda _: Record({1: 2}), ValueError, "^content: expected named fields, got a dict$"),
    ],
)
def test_what_is_wrong_is_named(call, error, text):
    record = Record(
        {"n": 3, "yes": True, "half": 0.5, "huge": 10**400, "inf": float("inf"), "mixed": [1, "a"], "minus": [-1],
         "large": [1e300], "fraction": [1.5], "inner": {}}
    )  # fmt: skip
    with pytest.raises(error, match=text):
        call(record)


def test_what_is_right_is_given():
    record = Record({"a": [1, None], "b": [2**64 - 1], "n": None, "list": [{"x": "y"}]})
    np.testing.assert_array_equal(record.array("a", np.float32), np.array([1, np.nan], np.float32))
    assert record.array("b", np.uint64).tolist() == [2**64 - 1]
    assert np.isnan(record.number("n"))
    assert record.records("list")[0].text("x") == "y"


def packed(pixels: bytes, shape: list[int]) -> Record:
    return Record({"shape": shape, "zlib_base64": base64.b64encode(zlib.compress(pixels)).decode()}, "picture")


def test_pictures_unpack_to_what_their_shape_says_and_no_more():
    assert Unpacker().picture(packed(bytes(range(6)), [1, 2, 3])).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    bomb = packed(bytes(2**24), [4, 4])
    with pytest.raises(
        ValueError, match=r"^picture.zlib_base64: expected 16 bytes as its shape \[4, 4\] says, got more$"
    ):
        Unpacker().picture(bomb)
    with pytest.raises(ValueError, match=r"expected 99 bytes .*, got 6$"):
        Unpacker().picture(packed(bytes(6), [9, 11]))
    for shape in ([2**40, 2**40], [0, 3], [-1, -6], [6], [1, 1, 2, 3]):
        with pytest.raises(ValueError, match=r"^picture.shape: expected a picture of at most"):
            Unpacker().picture(packed(bytes(6), shape))
    with pytest.raises(ValueError, match=r"^picture.zlib_base64: "):
        Unpacker().picture(Record({"shape": [2, 3], "zlib_base64": "AAAA"}, "picture"))
    unpacker = Unpacker(10)
    unpacker.picture(packed(bytes(6), [2, 3]))
    with pytest.raises(ValueError, match="at most 4 bytes"):  # all pictures together
        unpacker.picture(packed(bytes(6), [2, 3]))


def test_json_that_is_deep_or_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    for text, why in (
        ("[" * 100_000, "nested levels"),
        ("[" * 70 + "]" * 70, "nested levels, got more"),
        ("{", "Expecting"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=why):
            parse_json(path)
    path.write_text("[" * 60 + "]" * 60)
    assert parse_json(path)
    monkeypatch.setattr("torch_bgdebias.records._LARGEST_FILE", 10)
    path.write_text(json.dumps("x" * 20))
    with pytest.raises(ValueError, match="expected at most 10 bytes, got 22"):
        parse_json(path)
