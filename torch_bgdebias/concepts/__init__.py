"""Concept embeddings: does the model's notion of a class contain its usual background?

A concept vector is the linear combination of a layer's channels that segments the concept best: one for all images
(Net2Vec, Fong and Vedaldi, 2018, arXiv 1801.03454) or one an image (LoCE, Mikriukov et al., 2024, arXiv 2311.14435).
"""

from __future__ import annotations

from torch_bgdebias.concepts.activations import ActivationReader, choose_layers
from torch_bgdebias.concepts.experiment import ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.concepts.fitting import concept_iou, concept_objective, fit_concepts, fit_loce, fit_net2vec
from torch_bgdebias.concepts.populations import ConceptNeighbours, concept_neighbours, concept_outliers
from torch_bgdebias.concepts.probe import ConceptProbe, ConceptVectors
from torch_bgdebias.concepts.settings import ConceptSettings
from torch_bgdebias.concepts.store import ActivationStore
from torch_bgdebias.concepts.tree import ConceptTree, concept_tree

__all__ = [
    "ActivationReader",
    "ActivationStore",
    "ConceptNeighbours",
    "ConceptProbe",
    "ConceptSamples",
    "ConceptSettings",
    "ConceptTransfer",
    "ConceptTree",
    "ConceptVectors",
    "choose_layers",
    "concept_iou",
    "concept_neighbours",
    "concept_objective",
    "concept_outliers",
    "concept_transfer",
    "concept_tree",
    "fit_concepts",
    "fit_loce",
    "fit_net2vec",
]
