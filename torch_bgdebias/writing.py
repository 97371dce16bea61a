"""Writes files atomically: an interrupted run leaves the old file, never a partial one.

Everything goes into a part file beside the target (``report.html.part``), onto the disk, and only then under the name.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

if sys.platform != "win32":
    import fcntl

__all__ = [
    "UNFINISHED",
    "copy_file",
    "is_unfinished",
    "marked_folder",
    "move_file",
    "save_content",
    "save_png",
    "warn_if_unfinished",
    "whole_file",
    "write_text",
]

#: the file that marks a folder whose writer has not come to its end
UNFINISHED = "UNFINISHED.txt"
_MARK_TEXT = "The command that writes this folder is at work, or it was stopped: run it again.\n"
#: full, over the quota, larger than a file may be, broken
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LONGEST_NAME = 240  # bytes; file systems allow 255, and the part's ending comes on top


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block has ended without an exception.

    The old file stays until then, and keeps its permissions. A symbolic link goes on pointing where it does. Several
    writers of one file do not mix: the last one to finish wins. A pipe or device is written straight.

    Args:
        path: the file to write; its folder must exist.

    Raises:
        OSError: the file cannot be written; the error names ``path``.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers.bin")
        >>> with whole_file(path) as file:
        ...     size = file.write(b"123")
        >>> path.read_bytes()
        b'123'
    """
    target = Path(path)
    if target.is_symlink():
        try:
            target = target.resolve()
        except RuntimeError as error:  # what older Pythons call a circle of links
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        with _errors_name(target), target.open("wb") as straight:
            yield straight
        return
    part, file = _claim_part(target)
    with _errors_name(target), file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if target.exists():
                os.chmod(part, stat.S_IMODE(target.stat().st_mode))
            if sys.platform == "win32":
                file.close()  # there an open file cannot be renamed; elsewhere the lock is held until it is
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _errors_name(target: Path) -> Iterator[None]:
    """Add the target's name to an error of the disk about an open file, which names none."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_THE_DISK:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _claim_part(target: Path) -> tuple[Path, BinaryIO]:
    """An empty part file that nobody else is writing. What a killed run has left is used again, so nothing piles up."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    for number in itertools.count(1):
        part = target.with_name(f"{name}.part" if number == 1 else f"{name}.{number}.part")
        try:
            while True:
                file = _open_locked(part)
                if file is None or _is_at(part, file):
                    break
                file.close()  # its writer has just renamed it
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        if file is not None:
            file.truncate(0)
            return part, file
    raise AssertionError("unreachable")


def _open_locked(part: Path) -> BinaryIO | None:
    """The file, created where it is missing; ``None`` while another writer has it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file: BinaryIO = os.fdopen(os.open(part, flags, 0o666), "w+b")
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks: as good as alone
            pass
    return file


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 atomically.

    What has no UTF-8 (lone surrogates, by which Python holds file names that cannot be decoded) is written as
    ``\\udce9``: names stay apart, and what took an hour to measure is not lost for one of them.
    """
    with whole_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def save_content(content: object, path: str | os.PathLike[str]) -> None:
    """``torch.save`` atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with whole_file(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of its archive, which closes itself behind what the disk said
            if (of_disk := _of_disk(error)) is None:
                raise
            raise of_disk from None


def _of_disk(error: BaseException) -> OSError | None:
    """The error of the disk in whose handling another one came."""
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, OSError):
        earlier = earlier.__context__
    return earlier


def save_png(picture: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a picture, uint8 (3, H, W) or a mask (H, W) on the CPU, as PNG; folders on the way are made."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0) if picture.ndim == 3 else picture
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        Image.fromarray(pixels.contiguous().numpy()).save(file, format="PNG")


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy content, times and permissions atomically; folders on the way are made."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as readable, whole_file(target) as file:
        shutil.copyfileobj(readable, file)
    shutil.copystat(source, target)


def move_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Move a file: it is whole in one place at every moment, on another disk as well; folders on the way are made."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_file(source, target)
        os.unlink(source)


@contextmanager
def marked_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Mark a folder as unfinished until the block has ended without an exception; it is made where it is missing.

    Example:
        >>> import tempfile
        >>> with marked_folder(tempfile.mkdtemp()) as folder:
        ...     is_unfinished(folder)
        True
        >>> is_unfinished(folder)
        False
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / UNFINISHED, _MARK_TEXT)
    yield root
    (root / UNFINISHED).unlink(missing_ok=True)


def is_unfinished(folder: str | os.PathLike[str]) -> bool:
    """Whether the command that writes the folder has not come to its end."""
    return (Path(folder) / UNFINISHED).is_file()


def warn_if_unfinished(folder: str | os.PathLike[str]) -> None:
    """Warn before a folder is read whose writer was stopped: files may be missing."""
    if is_unfinished(folder):
        warnings.warn(
            f"{folder} is unfinished: the command that writes it was stopped, or is at work; run it again", stacklevel=3
        )
