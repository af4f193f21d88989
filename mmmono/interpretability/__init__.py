"""Interpretability of features: top samples, monosemanticity and neighbors (Sections 2.3 and 3.2)."""

from mmmono.interpretability.histograms import ActivationHistograms, HistogramStream, activation_histograms
from mmmono.interpretability.maps import feature_map
from mmmono.interpretability.monosemanticity import embsim, winrate
from mmmono.interpretability.ms import MonosemanticityStream, monosemanticity_score
from mmmono.interpretability.neighbors import (
    Neighbors,
    centered_activations,
    counterparts,
    nearest_features,
)
from mmmono.interpretability.sides import BothSides, BothSidesStream, negative_dominates
from mmmono.interpretability.steer import Steer, SteeredEmbeddings
from mmmono.interpretability.together import co_firing
from mmmono.interpretability.top_sample_search import TopSampleSearch
from mmmono.interpretability.top_samples import TopSamples, TopStream, top_samples

__all__ = [
    "ActivationHistograms",
    "BothSides",
    "BothSidesStream",
    "HistogramStream",
    "MonosemanticityStream",
    "Neighbors",
    "Steer",
    "SteeredEmbeddings",
    "TopSampleSearch",
    "TopSamples",
    "TopStream",
    "activation_histograms",
    "centered_activations",
    "co_firing",
    "counterparts",
    "embsim",
    "feature_map",
    "monosemanticity_score",
    "nearest_features",
    "negative_dominates",
    "top_samples",
    "winrate",
]
