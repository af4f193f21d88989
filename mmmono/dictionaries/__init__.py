"""Feature dictionaries over joint embeddings (TopK SAE, NCL head): models, training, storage and metrics."""

from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import Dictionary, DictionaryFeatures
from mmmono.dictionaries.callbacks import MetricHistory, Snapshots, TrainingPlateau
from mmmono.dictionaries.datamodule import PairedFeatures, ShuffledBatches
from mmmono.dictionaries.metrics import (
    ReconstructionMoments,
    ReconstructionQuality,
    SparsityMoments,
    fraction_of_variance_unexplained,
)
from mmmono.dictionaries.modules import DictionaryModule, NCLModule, SAEModule
from mmmono.dictionaries.ncl import NCLHead, contrastive_loss
from mmmono.dictionaries.pools import PairedBatch, RowReader
from mmmono.dictionaries.sae import TopKSAE

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
