"""Feature dictionaries over joint embeddings (TopK SAE, NCL head): models, training, storage and metrics."""

from typing import TYPE_CHECKING

from mmmono.core.lazy import lazy_exports
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import Dictionary, DictionaryFeatures
from mmmono.dictionaries.metrics import (
    ReconstructionMoments,
    ReconstructionQuality,
    SparsityMoments,
    fraction_of_variance_unexplained,
)
from mmmono.dictionaries.ncl import NCLHead, contrastive_loss
from mmmono.dictionaries.pools import PairedBatch, RowReader
from mmmono.dictionaries.sae import TopKSAE

if TYPE_CHECKING:
    from mmmono.dictionaries.callbacks import MetricHistory, Snapshots, TrainingPlateau
    from mmmono.dictionaries.datamodule import PairedFeatures, ShuffledBatches
    from mmmono.dictionaries.modules import DictionaryModule, NCLModule, SAEModule

__all__ = [
    "Dictionary",
    "DictionaryFeatures",
    "DictionaryModule",
    "MetricHistory",
    "NCLHead",
    "NCLModule",
    "PairedBatch",
    "PairedFeatures",
    "ReconstructionMoments",
    "ReconstructionQuality",
    "RowReader",
    "SAEModule",
    "ShuffledBatches",
    "Snapshots",
    "SparseAutoencoder",
    "SparsityMoments",
    "TopKSAE",
    "TrainingPlateau",
    "contrastive_loss",
    "fraction_of_variance_unexplained",
]

__getattr__ = lazy_exports(  # what trains: it takes Lightning
    __name__,
    {
        "callbacks": ("MetricHistory", "Snapshots", "TrainingPlateau"),
        "datamodule": ("PairedFeatures", "ShuffledBatches"),
        "modules": ("DictionaryModule", "NCLModule", "SAEModule"),
    },
)
