"""Files are written whole or not at all, whatever ends the writer."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_bgdebias.writing import (
    UNFINISHED,
    copy_file,
    is_unfinished,
    marked_folder,
    move_file,
    save_content,
    save_png,
    warn_if_unfinished,
    whole_file,
    write_text,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, permissions and links of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_kind_is_readable_again_and_leaves_no_part(tmp_path):
    from PIL import Image

    write_text(tmp_path / "text", "Grüße\n")
    save_content({"x": torch.arange(3)}, tmp_path / "tensors")
    picture = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
    save_png(picture, tmp_path / "deep" / "er" / "picture.png")
    save_png(picture[0], tmp_path / "mask.png")
    copy_file(tmp_path / "text", tmp_path / "copies" / "text")
    assert (tmp_path / "text").read_bytes() == "Grüße\n".encode() == (tmp_path / "copies" / "text").read_bytes()
    assert torch.load(tmp_path / "tensors", weights_only=True)["x"].tolist() == [0, 1, 2]
    with Image.open(tmp_path / "deep" / "er" / "picture.png") as read:
        assert read.size == (4, 2)
        assert read.getpixel((1, 0)) == (1, 9, 17)
    with Image.open(tmp_path / "mask.png") as read:
        assert np.asarray(read).ravel().tolist() == list(range(8))
    assert not list(tmp_path.rglob("*.part"))


def test_a_name_that_cannot_be_decoded_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "page", os.fsdecode(b"caf\xe9") + " café")
    assert (tmp_path / "page").read_text("utf-8") == "caf\\udce9 café"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    write_text(tmp_path / "file", "old")
    with pytest.raises(error), whole_file(tmp_path / "file") as file:
        file.write(b"new")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@posix
@pytest.mark.parametrize("call", ["write_text({}, 'new' * 40_000)", "save_content([torch.rand(9000)] * 3, {})"])
def test_a_full_disk_leaves_the_old_file_and_an_error(tmp_path, call):
    """torch's archive closes itself with an error of its own behind that of the disk."""
    code = f"""
        import resource, signal, torch
        from torch_bgdebias.writing import save_content, write_text
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a write beyond it fails, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        {call.format(repr(str(tmp_path / "file")))}
    """
    write_text(tmp_path / "file", "old")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@posix
def test_a_kill_leaves_the_old_file_and_the_next_run_clears_up(tmp_path):
    code = f"""
        import os
        from torch_bgdebias.writing import whole_file
        with whole_file({str(tmp_path / "file")!r}) as file:
            file.write(b"half" * 5000)
            file.flush()
            os.kill(os.getpid(), 9)
    """
    write_text(tmp_path / "file", "old")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file", "file.part"]
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file"]


@posix
def test_permissions_stay_and_new_files_follow_the_umask(tmp_path):
    write_text(tmp_path / "file", "old")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~_umask()
    (tmp_path / "file").chmod(0o640)
    write_text(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@posix
def test_a_link_stays_a_link_and_a_device_is_written_straight(tmp_path):
    write_text(tmp_path / "file", "old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    write_text("/dev/null", "gone")
    os.mkfifo(tmp_path / "pipe")
    seen = []
    reader = threading.Thread(target=lambda: seen.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join(10)
    assert seen == ["through"]


def test_errors_name_the_file_and_not_its_part(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing/file'"):
        write_text(tmp_path / "missing" / "file", "text")
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "text")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match=r"/loop'") as error:
        write_text(tmp_path / "loop", "text")
    assert error.value.errno == errno.ELOOP


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_named():
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_text("/dev/full", "text")
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        save_content(torch.zeros(10), "/dev/full")


def test_a_long_name_has_a_part_too(tmp_path):
    write_text(tmp_path / ("x" * 255), "text")
    assert (tmp_path / ("x" * 255)).read_text() == "text"
    assert len(names(tmp_path)) == 1


def test_many_writers_of_one_file_never_mix(tmp_path):
    path, stop, torn = tmp_path / "file", time.monotonic() + 1.5, []
    write_text(path, "0" * 50_000)

    def write(digit: str) -> None:
        while time.monotonic() < stop:
            write_text(path, digit * 50_000)

    writers = [threading.Thread(target=write, args=(str(i),)) for i in range(4)]
    for writer in writers:
        writer.start()
    while time.monotonic() < stop:
        text = path.read_text()
        if len(text) != 50_000 or len(set(text)) != 1:
            torn.append(text[:20])
    for writer in writers:
        writer.join()
    assert not torn
    assert names(tmp_path) == ["file"]


def test_a_file_moved_to_another_disk_is_copied_first(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "text")
    move_file(tmp_path / "a", tmp_path / "deep" / "b")
    assert not (tmp_path / "a").exists()
    real = os.replace

    def across(source, target):
        if str(source).endswith(".part"):
            return real(source, target)
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "replace", across)
    move_file(tmp_path / "deep" / "b", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "text"
    assert names(tmp_path / "deep") == []


def test_a_folder_is_marked_until_its_writer_has_finished(tmp_path):
    with pytest.raises(RuntimeError), marked_folder(tmp_path / "out"):
        raise RuntimeError
    assert names(tmp_path / "out") == [UNFINISHED]
    with pytest.warns(UserWarning, match=r"out is unfinished: the command that writes it was stopped"):
        warn_if_unfinished(tmp_path / "out")
    with marked_folder(tmp_path / "out"):
        assert is_unfinished(tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_backgrounds_of_an_unfinished_folder_are_read_with_a_warning(tmp_path):
    from torch_bgdebias.backgrounds import BackgroundBank

    save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "sky" / "a.png")
    with marked_folder(tmp_path), pytest.warns(UserWarning, match="is unfinished"):
        assert len(BackgroundBank.from_folder(tmp_path, 8)) == 1
