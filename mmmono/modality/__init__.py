"""Modality of each feature: scores, partition, uncertainty and removal ablation (Section 2)."""

from mmmono.modality.ablation import Ablation, AblationSettings, removal_ablation
from mmmono.modality.agreement import CorrelationStream, adjusted_rand_index, match_features, rank_correlation
from mmmono.modality.alternatives import EnergyStream, energy_ratio, image_auroc
from mmmono.modality.dominance import DominanceScores, DominanceStream, dominance_scores, modality_dominance_score
from mmmono.modality.gap import GapStream, ModalityGap, modality_gap
from mmmono.modality.partition import (
    CLASSES,
    LIVE_CLASSES,
    FeatureClass,
    Partition,
    partition_by_counts,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
)
from mmmono.modality.resampling import DominanceResamples, resample_dominance
from mmmono.modality.sharedness import Sharedness, SharednessStream, sharedness
from mmmono.modality.sign_flips import sign_flip_p_values
from mmmono.modality.stored import load_partition, save_partition

__all__ = [
    "CLASSES",
    "LIVE_CLASSES",
    "Ablation",
    "AblationSettings",
    "CorrelationStream",
    "DominanceResamples",
    "DominanceScores",
    "DominanceStream",
    "EnergyStream",
    "FeatureClass",
    "GapStream",
    "ModalityGap",
    "Partition",
    "Sharedness",
    "SharednessStream",
    "adjusted_rand_index",
    "dominance_scores",
    "energy_ratio",
    "image_auroc",
    "load_partition",
    "match_features",
    "modality_dominance_score",
    "modality_gap",
    "partition_by_counts",
    "partition_by_margin",
    "partition_by_null",
    "partition_by_sigma",
    "rank_correlation",
    "removal_ablation",
    "resample_dominance",
    "save_partition",
    "sharedness",
    "sign_flip_p_values",
]
