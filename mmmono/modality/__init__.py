"""Which modality each feature belongs to: scores, partition, and the gap of the whole model (Section 2)."""

from mmmono.modality.dominance import DominanceScores, dominance_scores, modality_dominance_score
from mmmono.modality.gap import ModalityGap, modality_gap
from mmmono.modality.partition import CLASSES, FeatureClass, Partition, partition_by_counts, partition_by_sigma

__all__ = [
    "CLASSES",
    "DominanceScores",
    "FeatureClass",
    "ModalityGap",
    "Partition",
    "dominance_scores",
    "modality_dominance_score",
    "modality_gap",
    "partition_by_counts",
    "partition_by_sigma",
]
