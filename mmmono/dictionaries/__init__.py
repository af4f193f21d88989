"""Feature dictionaries over joint embeddings (TopK SAE, NCL head): models, training, storage and metrics."""

from mmmono.dictionaries.base import Dictionary, DictionaryFeatures
from mmmono.dictionaries.callbacks import ActiveDimensionsPlateau, MetricHistory, Snapshots
from mmmono.dictionaries.datamodule import PairedFeatures, ShuffledBatches
from mmmono.dictionaries.metrics import ReconstructionMoments, ReconstructionQuality, fraction_of_variance_unexplained
from mmmono.dictionaries.modules import DictionaryModule, NCLModule, SAEModule
from mmmono.dictionaries.ncl import NCLHead, contrastive_loss
from mmmono.dictionaries.pools import PairedBatch
from mmmono.dictionaries.sae import TopKSAE

__all__ = [
    "ActiveDimensionsPlateau",
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
    "SAEModule",
    "ShuffledBatches",
    "Snapshots",
    "TopKSAE",
    "contrastive_loss",
    "fraction_of_variance_unexplained",
]
