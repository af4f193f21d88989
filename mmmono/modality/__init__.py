"""Modality of each feature: scores, partition, uncertainty and removal ablation (Section 2)."""

from mmmono.modality.ablation import Ablation, removal_ablation
from mmmono.modality.agreement import adjusted_rand_index, match_features, rank_correlation
from mmmono.modality.alternatives import energy_ratio, image_auroc
from mmmono.modality.dominance import DominanceScores, dominance_scores, modality_dominance_score
from mmmono.modality.gap import ModalityGap, modality_gap
from mmmono.modality.partition import (
    CLASSES,
    FeatureClass,
    Partition,
    partition_by_counts,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
)
from mmmono.modality.resampling import DominanceResamples, resample_dominance
from mmmono.modality.sign_flips import sign_flip_p_values

__all__ = [
    "CLASSES",
    "Ablation",
    "DominanceResamples",
    "DominanceScores",
    "FeatureClass",
    "ModalityGap",
    "Partition",
    "adjusted_rand_index",
    "dominance_scores",
    "energy_ratio",
    "image_auroc",
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
    "sign_flip_p_values",
]
