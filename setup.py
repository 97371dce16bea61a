"""Build of the optional extension; everything else about the package is in pyproject.toml.

TORCH_BGDEBIAS_BUILD chooses: ``auto`` (default), ``none``, ``cpu`` or ``cuda``. See docs/extension.md.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

VARIABLE = "TORCH_BGDEBIAS_BUILD"
WORDS = ("auto", "none", "cpu", "cuda")

#: The stable ABI that the kernels are written in is that of torch 2.10: what is built against a newer one still loads
#: there. The package itself runs from torch 2.5 on, with its plain torch kernel.
TARGET_VERSION = "0x020a000000000000"
CUDA_ARCHITECTURES = "7.5;8.0;9.0+PTX"  # unless TORCH_CUDA_ARCH_LIST says otherwise, as for torch's own extensions

CPU_SOURCES = ["csrc/module.cpp", "csrc/cpu/voronoi_composite.cpp"]
CUDA_SOURCES = ["csrc/cuda/binding.cpp", "csrc/cuda/voronoi_composite.cu"]
HEADERS = [
    "csrc/binding.h",
    "csrc/cells.h",
    "csrc/voronoi_composite.h",
    "csrc/cpu/voronoi_composite_kernel.h",
]
# Without contraction: a fused multiply-add rounds once where the plain kernel rounds twice.
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off"]


class CannotBuild(Exception):
    """Why the extension, or its CUDA part, cannot be built here."""


def wanted() -> str:
    word = os.environ.get(VARIABLE, "auto")
    if word not in WORDS:
        sys.exit(f"{VARIABLE}: expected one of {', '.join(WORDS)}, got {word!r}")
    return word


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        raise CannotBuild("no C++ compiler found (CXX, c++, g++, clang++)")
    return found


def torch_folder() -> Path:
    if sys.platform not in ("linux", "darwin"):
        raise CannotBuild(f"the extension is not built on {sys.platform}")
    try:
        import torch
    except ImportError as error:
        raise CannotBuild(
            f"torch cannot be imported while building ({error}): pip install --no-build-isolation ."
        ) from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 10):
        raise CannotBuild(f"the compiled kernels need torch 2.10 or newer, this is {torch.__version__}")
    return Path(torch.__file__).parent


def cuda_home() -> Path:
    import torch

    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which(f"{home}/bin/nvcc") if home else shutil.which("nvcc")
    if nvcc is None:
        raise CannotBuild("nvcc found neither in CUDA_HOME nor on the PATH")
    if torch.version.cuda is None:
        raise CannotBuild(f"torch {torch.__version__} has no CUDA")
    dry = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True)
    top = [line.split("TOP=", 1)[1].strip() for line in dry.stderr.splitlines() if "TOP=" in line]
    root = Path(top[0]).resolve() if top else Path(nvcc).resolve().parents[1]  # nvcc may be a script elsewhere
    release = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    toolkit = release.split("release ")[-1].split(",")[0].strip()
    if toolkit.split(".")[0] != torch.version.cuda.split(".")[0]:
        raise CannotBuild(f"the CUDA toolkit is {toolkit}, torch was built with {torch.version.cuda}")
    return root


def architecture_flags() -> list[str]:
    flags = []
    for entry in os.environ.get("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES).replace(" ", ";").split(";"):
        number = entry.removesuffix("+PTX").replace(".", "")
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if entry.endswith("+PTX"):
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def put_in_place(part: Path, target: Path) -> None:
    """Seal what the linker wrote and give it its name: it is there whole or not at all, and never changed in use."""
    place = Path("torch_bgdebias/ops/seal.py")  # by its path: importing the package would load torch and the library
    spec = importlib.util.spec_from_file_location("seal", place)
    seal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seal)
    content = seal.sealed(part.read_bytes())
    part.write_bytes(content)
    rename_when_on_disk(part, target)


def rename_when_on_disk(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


class BuildKernels(build_ext):
    """Compile with the compilers themselves: the library has no Python in it, so Python's flags do not belong there."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", os.sep) + ".so"  # for any Python

    def run(self) -> None:
        word = wanted()
        try:
            super().run()
        except (CannotBuild, subprocess.CalledProcessError) as error:
            if word != "auto":
                sys.exit(f"{VARIABLE}={word}: the extension cannot be built: {error}")
            warnings.warn(f"torch_bgdebias is installed without its extension: {error}", stacklevel=1)
            self.extensions = []
            self.distribution.ext_modules = []

    def build_extension(self, ext: Extension) -> None:
        word = wanted()
        torch = torch_folder()
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # never leave an older one behind a failure
        if word != "cpu":
            try:
                self._link(target, torch, cuda_home())
                return
            except (CannotBuild, subprocess.CalledProcessError) as error:
                if word == "cuda":
                    raise
                self.announce(f"no CUDA kernel: {error}", level=3)
        self._link(target, torch, None)

    def _link(self, target: Path, torch: Path, cuda: Path | None) -> None:
        objects = Path(self.build_temp)
        objects.mkdir(parents=True, exist_ok=True)
        include = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
        define = [f"-DTORCH_TARGET_VERSION={TARGET_VERSION}", *os.environ.get("CXXFLAGS", "").split()]
        libraries = [f"-L{torch / 'lib'}", "-ltorch_cpu"]
        if cuda is not None:
            include.append(f"-I{cuda / 'include'}")
            define.append("-DUSE_CUDA")  # opens the CUDA part of the stable headers
            folder = cuda / ("lib64" if (cuda / "lib64").is_dir() else "lib")
            libraries += ["-ltorch_cuda", f"-L{folder}", "-lcudart"]
        built = []
        for source in CPU_SOURCES + (CUDA_SOURCES if cuda is not None else []):
            built.append(str(objects / (source.replace("/", "_") + ".o")))
            if source.endswith(".cu"):
                command = [str(cuda / "bin/nvcc"), *NVCC_FLAGS, *architecture_flags()]
            else:
                command = [compiler(), *CXX_FLAGS, *define, *include]
            self._run([*command, "-c", source, "-o", built[-1]])
        extra = os.environ.get("CXXFLAGS", "").split() + os.environ.get("LDFLAGS", "").split()
        part = target.with_name(f"{target.name}.part")
        part.unlink(missing_ok=True)
        self._run([compiler(), "-shared", *built, *extra, *libraries, "-o", str(part)])
        put_in_place(part, target)

    def copy_file(self, infile: str, outfile: str, *args: object, **kwargs: object) -> tuple[str, bool]:
        """To the sources, for a build in place: as in `put_in_place`, where setuptools would write into the target."""
        part = Path(f"{outfile}.part")
        part.unlink(missing_ok=True)
        super().copy_file(infile, str(part), *args, **kwargs)
        rename_when_on_disk(part, Path(outfile))
        return outfile, True

    def _run(self, command: list[str]) -> None:
        self.announce(" ".join(command), level=2)
        subprocess.run(command, check=True)


class WheelForAnyPython(bdist_wheel):
    """py3-none-<platform> with the extension, py3-none-any without."""

    def get_tag(self) -> tuple[str, str, str]:
        built = any(Path(self.bdist_dir).rglob("_C.so")) if Path(self.bdist_dir).is_dir() else False
        if not built and not self.distribution.has_ext_modules():
            return "py3", "none", "any"
        return "py3", "none", super().get_tag()[2]

    def write_wheelfile(self, wheelfile_base: str, *args: object, **kwargs: object) -> None:
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().write_wheelfile(wheelfile_base, *args, **kwargs)


def extensions() -> list[Extension]:
    word = wanted()
    if word == "none":
        return []
    try:
        torch_folder()
        compiler()
    except CannotBuild as error:
        if word != "auto":
            sys.exit(f"{VARIABLE}={word}: {error}")
        return []
    return [Extension("torch_bgdebias._C", CPU_SOURCES + CUDA_SOURCES, depends=HEADERS)]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelForAnyPython})
