"""Lay out the site's sources: pages where the repository has them, so that their links hold, and the API's pages.

    python site/assemble.py build/site-source

Of the package nothing is imported: its public names are read from the faces' blocks for type checkers.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import notebooks  # beside this file

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "torch_bgdebias"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "NOTICE", "CITATION.cff")
FOLDERS = {"docs": "*", "docs/notebooks": "*.md", "experiments": "**/*.md", "examples": "*.py"}
#: faces with a page of their own, in the order of the navigation; what is neither here nor a face is not public
FACES = (
    "callbacks", "probe", "metrics", "data", "masks", "backgrounds", "swap", "clad", "isnet", "lrp", "heads",
    "finetuning", "audit", "attribution", "concepts", "ops", "batch", "train",
)  # fmt: skip


def public_names(face: Path) -> dict[str, str]:
    """Public name -> full name of what defines it, from a face's imports or a file's ``__all__``."""
    source = face.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = ".".join(face.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    checked = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    if "lazy(" in source:
        return imported(node for block in checked for node in block.body)
    (listed,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    elsewhere = imported(tree.body) if face.name == "__init__.py" else {}
    return {name: elsewhere.get(name, f"{module}.{name}") for name in listed}


def imported(statements: Iterable[ast.stmt]) -> dict[str, str]:
    imports = [node for node in statements if isinstance(node, ast.ImportFrom)]
    return {(alias.asname or alias.name): f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def face_of(room: str) -> Path:
    return PACKAGE / f"{room}.py" if (PACKAGE / f"{room}.py").exists() else PACKAGE / room / "__init__.py"


def defined_at(full_name: str) -> str:
    """Through faces to the file that defines a name."""
    module, _, name = full_name.rpartition(".")
    face = face_of(".".join(module.split(".")[1:]).replace(".", "/"))
    names = public_names(face) if face.name == "__init__.py" else {}
    return defined_at(names[name]) if name in names and names[name] != full_name else full_name


def api_page(room: str) -> str:
    """A room's public names; what another room's page documents is a link."""
    module = f"torch_bgdebias.{room}"
    lines = [f"# {module}", ""]
    for name, full_name in sorted(public_names(face_of(room)).items(), key=lambda pair: pair[0].lower()):
        home = defined_at(full_name).split(".")[1]
        if full_name == f"{module}.{name}" and face_of(f"{room}/{name}").exists():
            continue  # a room inside this one
        lines += [f"## {name}", ""]
        if home != room and home in FACES and name in public_names(face_of(home)):
            lines += [f"See [`torch_bgdebias.{home}.{name}`]({home}.md#{name.lower()}).", ""]
        else:
            lines += [f"::: {defined_at(full_name)}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def readable(source: str) -> str:
    """Docstrings as the site's generator reads them: its name for examples, roles as plain code."""
    source = re.sub(r"^( +)Example:$", r"\1Examples:", source, flags=re.MULTILINE)
    return re.sub(r":(?:class|func|mod|meth|attr):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", source)


def top_page() -> str:
    lines = [
        "# torch_bgdebias",
        "",
        "At top level is what people use first:",
        "",
        "| name | defined in |",
        "| --- | --- |",
    ]
    for name, full_name in sorted(public_names(PACKAGE / "__init__.py").items(), key=lambda pair: pair[0].lower()):
        room = full_name.split(".")[1] if full_name.count(".") > 1 else ""
        if room in FACES:
            lines.append(f"| [`{name}`]({room}.md#{name.lower()}) | `torch_bgdebias.{room}` |")
    return "\n".join(lines) + "\n"


def write_notebooks(folder: Path) -> None:
    """A page for each notebook, and their table with links to these."""
    table = folder / "README.md"
    table.write_text(table.read_text(encoding="utf-8").replace(".ipynb)", ".md)"), encoding="utf-8")
    for path in notebooks.FOLDER.glob("*.ipynb"):
        text = notebooks.page(notebooks.read(path), path.stem, folder)
        (folder / f"{path.stem}.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write, and site-package beside it; what is in it goes")
    out = parser.parse_args().out
    for folder in (out, out.with_name("site-package")):
        shutil.rmtree(folder, ignore_errors=True)
    chosen = [ROOT / name for name in PAGES if (ROOT / name).exists()]
    chosen += [path for folder, pattern in FOLDERS.items() for path in (ROOT / folder).glob(pattern) if path.is_file()]
    for path in chosen:
        target = out / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_notebooks(out / "docs" / "notebooks")
    for path in PACKAGE.rglob("*.py"):
        target = out.with_name("site-package") / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(readable(path.read_text(encoding="utf-8")), encoding="utf-8")
    (out / "api").mkdir()
    (out / "api" / "index.md").write_text(top_page(), encoding="utf-8")
    for room in FACES:
        (out / "api" / f"{room}.md").write_text(api_page(room), encoding="utf-8")


if __name__ == "__main__":
    main()
