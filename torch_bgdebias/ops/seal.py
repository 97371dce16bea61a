"""The seal behind a built library: its length and checksum, so that a damaged one is known before it is loaded.

A library that was cut off or changed on its way (an interrupted copy, a bad disk) is mapped by the system's loader
without a look, and the process dies by a signal. setup.py seals what it has linked; it reads this file by its path,
therefore nothing but Python's own library is used here.
"""

from __future__ import annotations

import hashlib
import struct

__all__ = ["flaw", "sealed"]

_WORDS = b"torch_bgdebias seal 1\n"
_SEAL = struct.Struct(f"<{len(_WORDS)}sQ32s")  # words, length of the library, SHA-256 of it
_BUILD_AGAIN = "build it again"


def sealed(library: bytes) -> bytes:
    """A library as the linker wrote it, with its seal behind it; loaders do not look there.

    Raises:
        ValueError: the library ends before its own segments do.
    """
    if cut := _cut_short(library):
        raise ValueError(cut)
    return library + _SEAL.pack(_WORDS, len(library), hashlib.sha256(library).digest())


def flaw(content: bytes) -> str | None:
    """Why the content of a library's file must not be loaded; ``None`` where it is what was sealed."""
    if cut := _cut_short(content):
        return f"{cut}; {_BUILD_AGAIN}"
    if len(content) < _SEAL.size:
        return f"it has no checksum; {_BUILD_AGAIN}"
    words, length, digest = _SEAL.unpack(content[-_SEAL.size :])
    library = memoryview(content)[: -_SEAL.size]
    if words != _WORDS:
        return f"it has no checksum at its end, which is missing or was not written by setup.py; {_BUILD_AGAIN}"
    if length != len(library):
        return f"it has {len(library)} bytes where {length} were built; {_BUILD_AGAIN}"
    if hashlib.sha256(library).digest() != digest:
        return f"its checksum is not the one that was taken when it was built: bytes have changed; {_BUILD_AGAIN}"
    return None


def _cut_short(content: bytes) -> str | None:
    """Whether an ELF file (64 bits, little-endian) ends before its segments or sections do; others pass."""
    if not content.startswith(b"\x7fELF\x02\x01"):
        return None
    if len(content) < 64:
        return f"it is cut short: {len(content)} bytes, its header has 64"
    segments, sections = struct.unpack_from("<QQ", content, 32)
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHH", content, 54)
    end = max(64, segments + segment_size * segment_count, sections + section_size * section_count)
    if end <= len(content) and segment_size >= 56:
        for number in range(segment_count):
            offset, _, _, size = struct.unpack_from("<QQQQ", content, segments + number * segment_size + 8)
            end = max(end, offset + size)
    if end > len(content):
        return f"it is cut short: {len(content)} bytes, its segments and sections reach to {end}"
    return None
