"""Paired embeddings on disk, and the feature sets computed from them."""

from mmmono.features.extraction import extract_features
from mmmono.features.feature_set import ActivationBlock, FeatureSet, RawFeatures, activations
from mmmono.features.rows import Rows, StoredRows
from mmmono.features.selection import FeatureView, split_view
from mmmono.features.store import MODALITIES, FeatureStore, Manifest, Modality, PairedBlock
from mmmono.features.writer import FeatureStoreWriter

__all__ = [
    "MODALITIES",
    "ActivationBlock",
    "FeatureSet",
    "FeatureStore",
    "FeatureStoreWriter",
    "FeatureView",
    "Manifest",
    "Modality",
    "PairedBlock",
    "RawFeatures",
    "Rows",
    "StoredRows",
    "activations",
    "extract_features",
    "split_view",
]
