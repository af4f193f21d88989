"""Vectors of pairs and their similarities without some features: updated where that costs less than computing them anew.

With vectors z = codes · atoms + bias, removing the features R changes the products of all images with all texts by a
matrix of rank 2 |R|, or |R| if the codes are the vectors. Its product costs less than the one of whole vectors while that
rank is below their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.sparse import csr_array
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.features.feature_set import FeatureSet
from mmmono.features.sparse_rows import compact
from mmmono.features.store import Modality

Array = np.ndarray[Any, Any]
BATCH = 4096  # samples, or atoms, that pass through a feature set at once
ONE_HOT_VALUES = 2**25  # of the codes that atoms are found by, at most: 128 MB
SHRUNK = 1e-4  # of its length: a vector that lost more is multiplied anew, since an update would leave rounding errors


@dataclass(frozen=True)
class Composition:
    """Samples as sums of features: z = codes · atoms + bias.

    Attributes:
        codes: activations.
        atoms: what each feature adds to a vector; None if the codes are the vectors.
        bias: the vector without any feature; None for 0.
    """

    codes: Float64[Tensor, "samples features"]
    atoms: Float64[Tensor, "features dim"] | None = None
    bias: Float64[Tensor, " dim"] | None = None

    def __post_init__(self) -> None:
        check_finite(self.codes, "sample")
        if self.atoms is not None and len(self.atoms) != self.codes.shape[1]:
            raise ValueError(f"{self.codes.shape[1]} features but {len(self.atoms)} atoms: each feature has one")

    @property
    def features(self) -> int:
        """Number of features."""
        return self.codes.shape[1]

    @cached_property
    def vectors(self) -> Float64[Tensor, "samples dim"]:
        """Vectors with all features."""
        return self.codes if self.atoms is None else self._sum(torch.arange(self.features))

    @cached_property
    def _active(self) -> Bool[Tensor, "samples features"]:
        return self.codes != 0

    @cached_property
    def _l0(self) -> Int64[Tensor, " samples"]:
        return self._active.sum(1)

    @cached_property
    def _few(self) -> Any:
        """Codes that are not 0 as a `csr_array`, if there are few; else None."""
        found = compact(self.codes)
        return found if isinstance(found, csr_array) else None

    def without(self, removed: Int64[Tensor, " removed"]) -> Float64[Tensor, "samples dim"]:
        """Return the vectors without some features; a sample without any other active feature is exactly the bias."""
        if self.atoms is None:
            return self.codes.index_fill(1, removed, 0.0)
        kept = others(removed, self.features)
        if self._few is not None:  # of which a sum costs less than finding what to subtract from it
            changed = self._active[:, removed].any(1).nonzero().squeeze(1)
            vectors = self.vectors.clone()
            vectors[changed] = self._sum(kept, changed)
            return vectors
        if len(kept) < len(removed):
            return self._sum(kept)
        vectors = torch.addmm(self.vectors, self.codes[:, removed], self.atoms[removed], alpha=-1)
        empty = self._active[:, removed].sum(1) == self._l0
        vectors[empty] = 0.0 if self.bias is None else self.bias
        return vectors

    def _sum(self, features: Tensor, samples: Tensor | None = None) -> Tensor:
        assert self.atoms is not None
        if self._few is not None:
            mask = np.zeros(self.features)
            mask[features] = 1
            few = self._few if samples is None else self._few[samples.numpy()]
            few = csr_array((few.data * mask[few.indices], few.indices, few.indptr), few.shape)
            total = torch.from_numpy(few @ self.atoms.numpy())
        else:
            total = self.codes[:, features] @ self.atoms[features]
        return total if self.bias is None else total + self.bias


def others(features: Int64[Tensor, " some"], count: int) -> Int64[Tensor, " others"]:
    """Ascending indices of all of `count` features but some."""
    mask = torch.ones(count, dtype=torch.bool)
    mask[features] = False
    return mask.nonzero().squeeze(1)


def composition_of(
    features: FeatureSet, embeddings: Tensor, modality: Modality, decoded: bool, device: str = "cpu"
) -> Composition:
    """Take embeddings apart into the features of a set, in float64 on the CPU.

    Args:
        features: the feature set. Its decoder must be affine in the codes, as that of every dictionary here is.
        embeddings: `[samples, dim]`, of one modality.
        modality: image or text.
        decoded: whether vectors are reconstructions; else they are the codes themselves.
        device: where the feature set is.

    Raises:
        DictionaryError: reconstructions are wanted of a feature set without a decoder.
    """
    with torch.inference_mode():
        parts = [double(features.encode(part.to(device), modality)).cpu() for part in embeddings.split(BATCH)]
        codes = torch.cat(parts)
        if not decoded:
            return Composition(codes)
        bias = _bias(features, modality, device)
        atoms = atoms_of(features, torch.arange(features.num_features), modality, device)
        return Composition(codes, double(atoms).cpu(), double(bias).cpu())


def atoms_of(
    features: FeatureSet, chosen: Int64[Tensor, " chosen"], modality: Modality, device: str = "cpu"
) -> Float[Tensor, "chosen dim"]:
    """What one unit of each chosen feature adds to an embedding: the decoder's answer to it, minus that to nothing.

    Raises:
        DictionaryError: the feature set has no decoder.
    """
    bias = _bias(features, modality, device)
    if (each := features.decode_each(chosen, modality)) is not None:
        return each - bias
    batch = max(1, min(BATCH, ONE_HOT_VALUES // features.num_features))
    parts = (_one_hot(part, features.num_features, device) for part in chosen.split(batch))
    return torch.cat([features.decode(part, modality) - bias for part in parts])


def all_atoms(features: FeatureSet, modality: Modality, device: str = "cpu") -> Float[Tensor, "features dim"] | None:
    """What one unit of each feature adds to an embedding; None of a feature set without a decoder."""
    if not features.decodes:
        return None
    with torch.inference_mode():
        return atoms_of(features, torch.arange(features.num_features), modality, device)


def _bias(features: FeatureSet, modality: Modality, device: str) -> Tensor:
    """Embedding of a sample that activates nothing."""
    return features.decode(torch.zeros(1, features.num_features, device=device), modality)[0]


def _one_hot(features: Tensor, count: int, device: str) -> Tensor:
    return torch.zeros(len(features), count).scatter_(1, features.cpu()[:, None], 1.0).to(device)


@dataclass(frozen=True)
class PairVectors:
    """Vectors of pairs in one space.

    Attributes:
        image, text: vectors; row i of both belongs to the same pair.
        cosines: of all images (rows) with all texts; 0 for vectors of length 0.
    """

    image: Float64[Tensor, "pairs dim"]
    text: Float64[Tensor, "pairs dim"]
    cosines: Float64[Tensor, "pairs pairs"]


class PairedCompositions:
    """Both sides of pairs, from which features can be removed many times.

    Args:
        image, text: the sides; row i of both belongs to the same pair.

    Raises:
        ValueError: the sides differ in the number of pairs or features, or only one has atoms.
    """

    def __init__(self, image: Composition, text: Composition) -> None:
        if image.codes.shape != text.codes.shape:
            raise ValueError(
                f"images have codes {tuple(image.codes.shape)}, texts {tuple(text.codes.shape)}: pairs need as many of both"
            )
        if (image.atoms is None) != (text.atoms is None):
            raise ValueError("one side has atoms and the other has none: both must lie in one space")
        self.image, self.text = image, text
        self._dots = image.vectors @ text.vectors.T
        self._buffer = torch.empty_like(self._dots)
        self._lengths = [_lengths(side.vectors) for side in (image, text)]

    @property
    def features(self) -> int:
        """Number of features."""
        return self.image.features

    def active(self) -> Bool[Tensor, " features"]:
        """Which features any of the samples activates."""
        return (self.image.codes != 0).any(0) | (self.text.codes != 0).any(0)

    def without(self, removed: Int64[Tensor, " removed"]) -> PairVectors:
        """Return the pairs' vectors and cosines without some features; the cosines are overwritten by the next call.

        Args:
            removed: indices of the features, each once.
        """
        image, text = self.image.without(removed), self.text.without(removed)
        dots = self._products(removed, image, text)
        lengths = [_lengths(side) for side in (image, text)]
        rows, columns = (
            (left < SHRUNK * before).nonzero().squeeze(1) for left, before in zip(lengths, self._lengths, strict=True)
        )
        dots[rows] = image[rows] @ text.T
        dots[:, columns] = image @ text[columns].T
        inverse = [torch.where(length > 0, 1 / length, 0.0) for length in lengths]
        return PairVectors(image, text, dots.mul_(inverse[0][:, None]).mul_(inverse[1]))

    def _products(self, removed: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """Scalar products of all images with all texts, in the buffer."""
        if self.image.atoms is None:
            kept = others(removed, self.features)
            if len(kept) < len(removed):
                return torch.mm(image[:, kept], text[:, kept].T, out=self._buffer)
            gone = self.image.codes[:, removed], self.text.codes[:, removed]
            return torch.addmm(self._dots, gone[0], gone[1].T, alpha=-1, out=self._buffer)
        if 2 * len(removed) >= image.shape[1]:
            return torch.mm(image, text.T, out=self._buffer)
        assert self.text.atoms is not None
        # z_i' z_t' = z_i z_t − P_i (D z_t) − (z_i' Dᵀ) P_t: P are the removed codes, D their atoms.
        of_image, of_text = self.image.codes[:, removed], self.text.codes[:, removed]
        reach = self.image.atoms[removed] @ self.text.vectors.T
        torch.addmm(self._dots, of_image, reach, alpha=-1, out=self._buffer)
        return self._buffer.addmm_(image @ self.text.atoms[removed].T, of_text.T, alpha=-1)


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=1)
