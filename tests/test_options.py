"""What has more than eight options makes a settings object of them: frozen, of the same names and defaults."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_bgdebias.attribution.kernel_shap import KernelShapSettings, kernel_shap
from torch_bgdebias.backgrounds.generation.generate import GenerationSettings, write_backgrounds
from torch_bgdebias.clad.callback import CLADCallback
from torch_bgdebias.clad.settings import CLADSettings
from torch_bgdebias.concepts.settings import ConceptOptions, ConceptSettings
from torch_bgdebias.data import FolderSettings, MaskedImageFolder
from torch_bgdebias.data.variants import VariantSettings
from torch_bgdebias.heads.debiased import HeadOptions, HeadSettings
from torch_bgdebias.isnet import ISNet, ISNetLoss, ISNetLossOptions, ISNetSettings, Rules
from torch_bgdebias.isnet.callback import ISNetCallback
from torch_bgdebias.isnet.rules import RuleOptions
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe.callback import BackgroundBiasProbe, ProbeOptions
from torch_bgdebias.probe.callback_loaders import LoaderLimits
from torch_bgdebias.probe.callback_settings import ProbeSettings
from torch_bgdebias.probe.certificate import CertificateOptions
from torch_bgdebias.probe.passes.settings import EvaluationOptions, EvaluationSettings, MeasuringOptions
from torch_bgdebias.swap import BackgroundSwap
from torch_bgdebias.swap.sampling import SwapSettings

PACKAGE = Path(__file__).resolve().parents[1] / "torch_bgdebias"
MOST = 8

#: function or class -> its settings, and what it takes beside them: objects, seeds, and where things are
SETTINGS: dict[str, tuple[tuple[type, ...], set[str]]] = {
    "attribution.kernel_shap.kernel_shap": ((KernelShapSettings,), {"target", "coalitions", "generator"}),
    "backgrounds.generation.generate.write_backgrounds": ((GenerationSettings,), {"source", "prompts"}),
    "clad.callback.CLADCallback": ((CLADSettings,), {"spec", "seed", "refresh", "log"}),
    "data.folder.MaskedImageFolder": ((FolderSettings,), {"transform", "settings"}),
    "data.variants.make_variant": (
        (VariantSettings,),
        {"backgrounds", "background_labels", "background_masks", "exclude", "void", "generator"},
    ),
    "isnet.callback.ISNetCallback": ((ISNetSettings,), {"variant", "spec", "loss", "seed", "log"}),
    "isnet.loss.ISNetLoss": ((ISNetLossOptions,), set()),
    "isnet.wrapper.ISNet": ((Rules,), set()),
    "probe.callback.BackgroundBiasProbe": (
        (ProbeSettings,),
        {"loader_or_bank", "spec", "every_n_epochs", "seed", "log", "settings", "backgrounds", "limits"},
    ),
    "swap.module.BackgroundSwap": ((SwapSettings,), {"source", "different_class", "fill", "edge", "data_keys"}),
    "train._MaskedFolders": ((FolderSettings, Preprocessing), {"batch_size", "workers", "mirror", "val_masks"}),
}
#: where ``None`` leaves a field as the settings have it, because what it is then depends on another field
UNSET = {"isnet.loss.ISNetLoss"}
#: keyword arguments as one type -> the settings whose fields they are
KEYWORDS: dict[type, tuple[type, ...]] = {
    CertificateOptions: (EvaluationSettings,),
    ConceptOptions: (ConceptSettings,),
    EvaluationOptions: (EvaluationSettings,),
    HeadOptions: (HeadSettings,),
    MeasuringOptions: (EvaluationSettings,),
    ProbeOptions: (EvaluationSettings, LoaderLimits),
    RuleOptions: (Rules,),
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of the package, as its source has it."""

    name: str
    options: int
    parameters: int
    keywords: str

    @property
    def private(self) -> bool:
        parts = self.name.split(".")
        return any(part.startswith("_") and not part.startswith("__") for part in parts[1:])


def signatures() -> list[Signature]:
    results = []

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = path
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inside = path if getattr(child, "name", "") == "__init__" else f"{path}.{child.name}"
            if isinstance(child, ast.FunctionDef):
                given = child.args
                plain = [argument for argument in (*given.posonlyargs, *given.args) if argument.arg not in _BOUND]
                keywords = "" if given.kwarg is None else ast.unparse(given.kwarg.annotation)
                options = len(given.defaults) + len(given.kwonlyargs)
                results.append(Signature(inside, options, len(plain) + len(given.kwonlyargs), keywords))
            visit(child, inside)

    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        visit(ast.parse(file.read_text()), module)
    return results


_BOUND = ("self", "cls", "ctx")
FUNCTIONS = signatures()


def member(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"torch_bgdebias.{module}"), attribute)


def test_the_source_is_read_as_python_reads_it():
    read = {signature.name: signature for signature in FUNCTIONS}
    for name in SETTINGS:
        given = inspect.signature(member(name)).parameters.values()
        given = [p for p in given if p.kind is not inspect.Parameter.VAR_KEYWORD]
        assert read[name].parameters == len(given)
        assert read[name].options == sum(p.default is not p.empty or p.kind is p.KEYWORD_ONLY for p in given)


def test_the_table_holds_everything_with_more_than_eight_options():
    assert {signature.name for signature in FUNCTIONS if signature.options > MOST} == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_have_the_same_names_and_defaults(name):
    classes, beside = SETTINGS[name]
    given = inspect.signature(member(name)).parameters
    options = {key: p.default for key, p in given.items() if p.default is not p.empty} | {
        key: p.empty for key, p in given.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    }
    assert beside <= set(options)
    assert len(beside) <= MOST
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls)}
    assert set(options) - beside <= set(fields)
    for key in set(options) - beside:
        assert options[key] == fields[key].default or (name in UNSET and options[key] is None), key
    if len(classes) == 1:  # else it takes some fields of each
        assert set(fields) <= set(given)


@pytest.mark.parametrize(
    "cls", dict.fromkeys([cls for classes, _ in SETTINGS.values() for cls in classes] + [ConceptSettings])
)
def test_settings_stay_as_they_are(cls):
    required = {"n": 1} if cls is GenerationSettings else {"name": "only_fg"} if cls is VariantSettings else {}
    settings = cls(**required)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(cls)[0].name, 1)


@pytest.mark.parametrize("keywords", KEYWORDS, ids=lambda cls: cls.__name__)
def test_keywords_are_the_settings_fields(keywords):
    fields = {field.name: field.type for cls in KEYWORDS[keywords] for field in dataclasses.fields(cls)}
    for name, kind in keywords.__annotations__.items():
        assert kind.__forward_arg__ in (fields[name], f"{fields[name]} | None"), name


def test_every_bundle_of_keywords_is_in_the_table():
    bundles = {f.keywords for f in FUNCTIONS if f.keywords.startswith("Unpack[")}
    assert bundles == {f"Unpack[{cls.__name__}]" for cls in set(KEYWORDS) - {MeasuringOptions}}


def test_nothing_private_takes_more_than_eight_parameters():
    assert [f.name for f in FUNCTIONS if f.private and f.parameters > MOST and f.name not in SETTINGS] == []


SWAP = BackgroundSwap("batch")
REFUSED = {
    "kernel_shap": (lambda o: kernel_shap(nn.Flatten(), torch.rand(1, 3, 8, 8), **o), KernelShapSettings, "samples", 1),
    "write_backgrounds": (
        lambda o: write_backgrounds("never made", 2, "noise", **o),
        lambda **o: GenerationSettings(2, **o),
        "batch_size",
        0,
    ),
    "CLADCallback": (lambda o: CLADCallback(SWAP, **o), CLADSettings, "temperature", 0.0),
    "MaskedImageFolder": (lambda o: MaskedImageFolder("nowhere", **o), FolderSettings, "min_foreground", 2.0),
    "ISNetCallback": (lambda o: ISNetCallback(**o), ISNetSettings, "fraction", 0.0),
    "ISNetLoss": (lambda o: ISNetLoss(**o), ISNetLossOptions, "mask_dilation", -1),
    "ISNet": (lambda o: ISNet(nn.Flatten(), **o), Rules, "epsilon", -1.0),
    "BackgroundBiasProbe": (lambda o: BackgroundBiasProbe(**o), ProbeSettings, "metrics", ("speed",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_keywords_are_checked_by_the_settings(name):
    call, settings, key, value = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{key}: expected") as by_keyword:
        call({key: value})
    with pytest.raises(ValueError, match=f"^{key}: expected") as by_settings:
        settings(**{key: value})
    assert str(by_keyword.value) == str(by_settings.value)


def test_a_folder_takes_its_settings_whole_or_as_keywords(tmp_path):
    from torch_bgdebias.data import example_folder

    root = example_folder(tmp_path / "scenes")
    settings = FolderSettings(size=24, classes=MaskedImageFolder(root).classes[:1])
    whole = MaskedImageFolder(root, settings=settings)
    keywords = MaskedImageFolder(root, size=24, classes=settings.classes)
    assert whole.settings is settings
    assert whole.samples == keywords.samples
    assert all(torch.equal(a, b) for a, b in zip(whole[0], keywords[0], strict=True) if isinstance(a, torch.Tensor))
    with pytest.raises(TypeError, match="settings: a FolderSettings holds all options"):
        MaskedImageFolder(root, size=24, settings=settings)
