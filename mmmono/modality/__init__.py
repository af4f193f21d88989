"""Modality of each feature: scores, partition, uncertainty and removal ablation (Section 2)."""

from mmmono.modality.ablation import Ablation, AblationSettings, removal_ablation
from mmmono.modality.agreement import CorrelationStream, adjusted_rand_index, match_features, rank_correlation
from mmmono.modality.alternatives import EnergyStream, energy_ratio, image_auroc
from mmmono.modality.confirmation import ClassCertainty, class_certainty
from mmmono.modality.dominance import DominanceStream, dominance_scores, modality_dominance_score
from mmmono.modality.gap import GapStream, ModalityGap, modality_gap
from mmmono.modality.groups import group_sizes
from mmmono.modality.intervals import effective_trials, score_intervals
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
from mmmono.modality.partition_file import load_partition, load_sharedness, save_partition, save_sharedness
from mmmono.modality.planning import groups_for_border, groups_for_half_width, groups_for_power
from mmmono.modality.report import FeatureSetDominance
from mmmono.modality.resampling import DominanceResamples, resample_dominance
from mmmono.modality.robustness import Agreement, MeanStream, other_partners, score_agreement
from mmmono.modality.scale import ScaleStream, scaled_scores
from mmmono.modality.scores import DominanceScores
from mmmono.modality.sharedness import Sharedness, SharednessStream, sharedness_scores
from mmmono.modality.sign_flips import sign_flip_p_values

__all__ = [
    "CLASSES",
    "LIVE_CLASSES",
    "Ablation",
    "AblationSettings",
    "Agreement",
    "ClassCertainty",
    "CorrelationStream",
    "DominanceResamples",
    "DominanceScores",
    "DominanceStream",
    "EnergyStream",
    "FeatureClass",
    "FeatureSetDominance",
    "GapStream",
    "MeanStream",
    "ModalityGap",
    "Partition",
    "ScaleStream",
    "Sharedness",
    "SharednessStream",
    "adjusted_rand_index",
    "class_certainty",
    "dominance_scores",
    "effective_trials",
    "energy_ratio",
    "group_sizes",
    "groups_for_border",
    "groups_for_half_width",
    "groups_for_power",
    "image_auroc",
    "load_partition",
    "load_sharedness",
    "match_features",
    "modality_dominance_score",
    "modality_gap",
    "other_partners",
    "partition_by_counts",
    "partition_by_margin",
    "partition_by_null",
    "partition_by_sigma",
    "rank_correlation",
    "removal_ablation",
    "resample_dominance",
    "save_partition",
    "save_sharedness",
    "scaled_scores",
    "score_agreement",
    "score_intervals",
    "sharedness_scores",
    "sign_flip_p_values",
]
