"""Steering: change chosen features of embeddings. Retrieval, generators and vision-language models all steer by this.

The codes of chosen features are changed, and an embedding moves by the change times the features' atoms, so that what the
dictionary does not explain stays as it is: z′ = z + Σ (c′ − c) · atom (the "error term" of Marks et al. 2024, kept).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.ranges import check_number, check_whole
from mmmono.features import FeatureSet, Modality
from mmmono.features.removal import atoms_of

How = Literal["set", "scale", "add"]


def check_how(how: str) -> None:
    """Raise ValueError unless `how` names a way to change a code."""
    if how not in get_args(How):
        raise ValueError(f"how={how} is none of {', '.join(get_args(How))}")


@dataclass(frozen=True)
class Steer:
    """A change of the codes of chosen features.

    Attributes:
        features: indices of the features, each once.
        amounts: what each of their codes is set to, multiplied by, or raised by.
        how: `set`, `scale` or `add`.

    Raises:
        ValueError: there are not as many amounts as features, a feature is named twice, or `how` is unknown.
    """

    features: tuple[int, ...]
    amounts: tuple[float, ...]
    how: How = "set"

    def __post_init__(self) -> None:
        check_how(self.how)
        for feature in self.features:
            check_whole("features", feature, least=0)
        for amount in self.amounts:
            check_number("amounts", amount)
        if len(self.features) != len(self.amounts):
            raise ValueError(f"{len(self.features)} features but {len(self.amounts)} amounts: give one for each")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features {list(self.features)} name one twice")

    @classmethod
    def of(cls, feature: int, strength: float, reference: float, how: How = "set") -> Steer:
        """Steer one feature by a strength.

        Args:
            feature: index of the feature.
            strength: in units of the reference to `set` or `add`; a factor of the code to `scale`.
            reference: activation of the feature where it is strong, see `reference_activations`.
            how: see the class.
        """
        return cls((feature,), (strength if how == "scale" else strength * reference,), how)

    def change(self, codes: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch chosen"]:
        """By how much the chosen features' codes change, c′ − c."""
        own = codes[..., list(self.features)]
        amounts = torch.tensor(self.amounts, dtype=codes.dtype, device=codes.device)
        if self.how == "add":
            return amounts.expand_as(own)
        return (amounts if self.how == "set" else own * amounts) - own

    def moved(
        self,
        vectors: Float[Tensor, "samples dim"],
        codes: Float[Tensor, "samples features"],
        atoms: Float[Tensor, "chosen dim"],
        lengths: Float[Tensor, "samples 1"] | float = 1.0,
    ) -> Float[Tensor, "samples dim"]:
        """Move vectors by the change of their codes, each times its feature's atom.

        Args:
            vectors: embeddings, or what is linear in them, such as their products with images.
            codes: activations of all features.
            atoms: what one unit of each chosen feature adds to a vector of length 1.
            lengths: of the vectors, if their codes are those of the vectors divided by them.
        """
        return torch.addmm(vectors, lengths * self.change(codes), atoms)


class SteeredEmbeddings:
    """Moves embeddings of one modality by a steer: encode, change the chosen codes, and add what that changes.

    Args:
        feature_set: feature set whose decoder is affine in the codes, as that of every dictionary here is.
        modality: modality of the embeddings.
        steer: which features, and how.
        normalize: whether the feature set takes L2-normalized embeddings: an embedding is then divided by its length
            before, and multiplied by it afterwards.
        device: where the feature set is.

    Raises:
        DictionaryError: the feature set has no decoder.
        ValueError: there is no such feature.
    """

    def __init__(
        self, feature_set: FeatureSet, modality: Modality, steer: Steer, normalize: bool, device: str = "cpu"
    ) -> None:
        if not all(0 <= feature < feature_set.num_features for feature in steer.features):
            raise ValueError(f"features {list(steer.features)} are not all among the {feature_set.num_features} of it")
        self._features, self._modality, self._steer, self._normalize = feature_set, modality, steer, normalize
        self._device = device
        with torch.inference_mode():
            self._atoms = atoms_of(feature_set, torch.tensor(steer.features), modality, device)

    def __call__(self, embeddings: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Return the moved embeddings, in the type and on the device that they came in."""
        with torch.inference_mode():
            given = embeddings.reshape(-1, embeddings.shape[-1]).to(self._device).float()
            lengths = torch.linalg.vector_norm(given, dim=1, keepdim=True) if self._normalize else 1.0
            codes = self._features.encode(given / lengths, self._modality)
            moved = self._steer.moved(given, codes, self._atoms.to(given), lengths)
            return moved.reshape(embeddings.shape).to(embeddings)
