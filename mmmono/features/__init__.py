"""Paired embeddings on disk, and the feature sets computed from them."""

from mmmono.features.extraction import extract_features
from mmmono.features.feature_set import ActivationBlock, FeatureSet, RawFeatures, activations
from mmmono.features.rows import EncodedRows, KernelRows, Rows, StoredRows
from mmmono.features.selection import Features, FeatureView, split_view
from mmmono.features.store import MODALITIES, FeatureStore, Manifest, Modality, PairedBlock
from mmmono.features.writer import FeatureStoreWriter

__all__ = [
    "MODALITIES",
    "ActivationBlock",
    "EncodedRows",
    "FeatureSet",
    "FeatureStore",
    "FeatureStoreWriter",
    "FeatureView",
    "Features",
    "KernelRows",
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
