"""Which samples activate a feature, for statistics that need yes or no: sign and threshold are fixed on other samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmmono.features import Modality

CHUNK_FEATURES = 512  # looked at at a time


@dataclass(frozen=True)
class ActivityRule:
    """From activations to whether a sample activates a feature.

    Attributes:
        sign: 1, or −1 for features whose negative activations have the larger energy, Σ z² over both modalities.
        threshold: of each modality; a sample whose activation times the sign is above it activates the feature. It is at
            least 0.
    """

    sign: Float[Tensor, " features"]
    threshold: dict[Modality, Float[Tensor, " features"]]

    @classmethod
    def of(cls, activations: dict[Modality, Float[Tensor, "samples features"]], share: float) -> ActivityRule:
        """Fix sign and threshold so that a sample is among the strongest `share` of its modality, and above 0.

        Sparse features that fire more rarely than that are active wherever they fire. Dense ones, which fire everywhere, are
        active where they are strongest.

        Args:
            activations: by modality.
            share: between 0 and 1.
        """
        count = next(iter(activations.values())).shape[1]
        sign = torch.ones(count)
        threshold = {modality: torch.zeros(count) for modality in activations}
        for start in range(0, count, CHUNK_FEATURES):  # copies of all activations would take many times their memory
            part = slice(start, start + CHUNK_FEATURES)
            sides = {modality: side[:, part].T.contiguous() for modality, side in activations.items()}
            above, below = (
                sum(side.double().mul(of).clamp_min(0).square().sum(1) for side in sides.values()) for of in (1, -1)
            )
            sign[part] = torch.where(torch.as_tensor(below) > above, -1.0, 1.0)
            for modality, side in sides.items():
                values = side * sign[part, None]
                rank = min(values.shape[1], max(1, round(share * values.shape[1]) + 1))
                largest = values.kthvalue(values.shape[1] - rank + 1, dim=1).values
                threshold[modality] = threshold[modality].to(largest.dtype)
                threshold[modality][part] = largest.clamp_min(0)
        return cls(sign, threshold)

    def active(
        self, activations: Float[Tensor, "samples features"], modality: Modality
    ) -> Bool[Tensor, "samples features"]:
        """Whether each sample of a modality activates each feature."""
        return activations * self.sign > self.threshold[modality]
