"""The tests mirror the package: every room has its folder here, every test file the name of what it tests."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "torch_bgdebias"

#: folders without a room: shared means, what all callbacks promise, the scripts, the CUDA source run as C++
ROOMLESS = {"helpers", "callbacks", "examples", "ops/cuda_host"}
#: files about the whole house rather than one of its files
OF_THE_HOUSE = {
    "any_tensors", "benchmarks", "documentation", "experiments", "faces", "hostile_files", "imports", "killed",
    "mirror", "no_waiting", "notebooks", "options", "public_api", "site", "type_checkers", "words",
}  # fmt: skip


def rooms() -> list[str]:
    """Folders of the package that hold code, the package itself as ``.``."""
    return sorted({path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")})


def names_in(room: str) -> list[str]:
    """What a test file may begin with: the room's own name, its files and rooms."""
    folder = PACKAGE / room
    inside = [path.stem.lstrip("_") for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()]
    return [folder.name, *filter(None, inside)]


def test_every_room_has_a_folder_with_tests():
    assert [room for room in rooms() if not list((TESTS / room).glob("test_*.py"))] == []


def test_every_test_file_is_called_after_what_it_tests():
    stray = []
    for path in sorted(TESTS.rglob("test_*.py")):
        room, subject = path.parent.relative_to(TESTS).as_posix(), path.stem.removeprefix("test_")
        if room in ROOMLESS or (room == "." and subject in OF_THE_HOUSE):
            continue
        if room not in rooms() or not any(f"{subject}_".startswith(f"{name}_") for name in names_in(room)):
            stray.append(path.relative_to(TESTS).as_posix())
    assert stray == []
