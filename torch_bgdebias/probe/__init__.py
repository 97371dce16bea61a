"""Measuring a classifier's background bias: evaluation, report, Lightning callback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.probe.callback import BackgroundBiasProbe as BackgroundBiasProbe
    from torch_bgdebias.probe.certificate import (
        BackgroundCertificate as BackgroundCertificate,
        certify_backgrounds as certify_backgrounds,
    )
    from torch_bgdebias.probe.concepts import (
        analyse_concepts as analyse_concepts,
        concept_heatmap as concept_heatmap,
        concept_tables as concept_tables,
    )
    from torch_bgdebias.probe.evaluation import (
        EvaluationSettings as EvaluationSettings,
        evaluate_background_bias as evaluate_background_bias,
    )
    from torch_bgdebias.probe.former import (
        compare_reports as compare_reports,
        report_figures as report_figures,
        report_to_html as report_to_html,
    )
    from torch_bgdebias.probe.grouping import (
        groups_from_csv as groups_from_csv,
        groups_from_folders as groups_from_folders,
    )
    from torch_bgdebias.probe.report import BackgroundBiasReport as BackgroundBiasReport, summarise as summarise
    from torch_bgdebias.probe.results.comparison import (
        Change as Change,
        ClassChange as ClassChange,
        ModelComparison as ModelComparison,
        compare_models as compare_models,
    )
    from torch_bgdebias.probe.results.concepts import (
        ConceptBackground as ConceptBackground,
        ConceptFit as ConceptFit,
        ConceptTable as ConceptTable,
        biased_pairs as biased_pairs,
    )
    from torch_bgdebias.probe.results.images import Example as Example, ImageResults as ImageResults
    from torch_bgdebias.probe.results.measurement import (
        ClassResult as ClassResult,
        Estimate as Estimate,
        ScoreResult as ScoreResult,
        VariantResult as VariantResult,
        WorstPart as WorstPart,
    )
    from torch_bgdebias.probe.results.performance import (
        LabelPerformance as LabelPerformance,
        VariantPerformance as VariantPerformance,
    )
    from torch_bgdebias.probe.results.sensitivity import MaskRow as MaskRow, MaskSensitivity as MaskSensitivity
    from torch_bgdebias.probe.sensitivity import mask_sensitivity as mask_sensitivity
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.probe.callback": ["BackgroundBiasProbe"],
            "torch_bgdebias.probe.certificate": ["BackgroundCertificate", "certify_backgrounds"],
            "torch_bgdebias.probe.concepts": ["analyse_concepts", "concept_heatmap", "concept_tables"],
            "torch_bgdebias.probe.evaluation": ["EvaluationSettings", "evaluate_background_bias"],
            "torch_bgdebias.probe.former": ["compare_reports", "report_figures", "report_to_html"],
            "torch_bgdebias.probe.grouping": ["groups_from_csv", "groups_from_folders"],
            "torch_bgdebias.probe.report": ["BackgroundBiasReport", "summarise"],
            "torch_bgdebias.probe.results.comparison": ["Change", "ClassChange", "ModelComparison", "compare_models"],
            "torch_bgdebias.probe.results.concepts": [
                "ConceptBackground",
                "ConceptFit",
                "ConceptTable",
                "biased_pairs",
            ],
            "torch_bgdebias.probe.results.images": ["Example", "ImageResults"],
            "torch_bgdebias.probe.results.sensitivity": ["MaskRow", "MaskSensitivity"],
            "torch_bgdebias.probe.sensitivity": ["mask_sensitivity"],
            "torch_bgdebias.probe.results.performance": ["LabelPerformance", "VariantPerformance"],
            "torch_bgdebias.probe.results.measurement": [
                "ClassResult",
                "Estimate",
                "ScoreResult",
                "VariantResult",
                "WorstPart",
            ],
        },
    )
