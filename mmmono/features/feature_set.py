"""Feature sets: maps from embeddings of either modality to the features that all analyses use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.core.extras import is_installed
from mmmono.features.grouping import GroupNumbers
from mmmono.features.rows import EncodedRows, Origin, Rows, StoredRows, prepare, to_float32
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES, WHOLE, Modality

# Minimum pairs × features at which the kernels save more than the second that loading numba takes; 2^18 pairs × 1,024.
WORTH_COMPILING = 1 << 27
COMPILED_BLOCK = 16384  # pairs per block that threads share, large enough for the cost of waking them to vanish


class FeatureSet(ABC):
    """Maps embeddings `[batch, input_dim]` to activations `[batch, num_features]`, and back if it has a decoder."""

    name: str
    input_dim: int
    num_features: int

    @abstractmethod
    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """Return the activations of a batch of one modality; differentiable."""

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """Return the embeddings with these activations. Raises DictionaryError if there is no decoder."""
        raise DictionaryError(f"feature set {self.name!r} has no decoder: use features=raw or features=sae")

    def decode_each(
        self, chosen: Int64[Tensor, " chosen"], modality: Modality
    ) -> Float[Tensor, "chosen input_dim"] | None:
        """Return what `decode` makes of an activation of 1 of each chosen feature alone; None if it has to be asked."""
        return None

    def copied_to(self, device: str | torch.device) -> Self:
        """Return the feature set on a device; one without weights is the same on all."""
        return self

    @property
    def decodes(self) -> bool:
        """Whether `decode` works."""
        return type(self).decode is not FeatureSet.decode

    @property
    def atoms(self) -> Float[Tensor, "num_features input_dim"] | None:
        """Direction in the embedding space that each feature stands for; None if the features have none."""
        return None


class RawFeatures(FeatureSet):
    """The embedding's own dimensions as features: the identity map."""

    name = "raw"

    def __init__(self, dim: int) -> None:
        self.input_dim = self.num_features = dim

    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """Return the embeddings unchanged."""
        return embeddings

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """Return the activations unchanged."""
        return activations


@dataclass(frozen=True)
class ActivationBlock:
    """Activations of consecutive pairs.

    Attributes:
        start: position of the first pair.
        image_rows, text_rows: activations, either tensors or `KernelRows` for the numba kernels.
        groups: group of each pair, as a number from 0 on; None if they were not asked for.
    """

    start: int
    image_rows: Rows
    text_rows: Rows
    groups: GroupNumbers | None = None

    @cached_property
    def image(self) -> Float[Tensor, "rows features"]:
        """Image activations as a tensor, float32 if they were `KernelRows`."""
        return to_float32(self.image_rows)

    @cached_property
    def text(self) -> Float[Tensor, "rows features"]:
        """Text activations as a tensor, float32 if they were `KernelRows`."""
        return to_float32(self.text_rows)

    def rows(self, modality: Modality) -> Rows:
        """Return the activations of one modality, as a tensor or `KernelRows`."""
        return self.image_rows if modality == "image" else self.text_rows


def activations(
    view: FeatureView,
    feature_set: FeatureSet,
    *,
    normalize: bool = True,
    block_size: int | None = None,
    device: str | torch.device = "cpu",
    span: slice = WHOLE,
) -> Iterator[ActivationBlock]:
    """Stream a feature set's activations over a view, block by block.

    Long streams on a CPU are yielded as `KernelRows` for the numba kernels: `StoredRows` of raw features, `EncodedRows` of
    others. `image` and `text` of a block are tensors in any case.

    Args:
        view: the pairs.
        feature_set: computed without gradients.
        normalize: L2-normalize the embeddings first; the store keeps them unnormalized.
        block_size: pairs per block; by default sized for a CPU's second-level cache, or to keep a GPU busy.
        device: of the computation and its results.
        span: rows of the store to walk, by default all.

    Raises:
        DictionaryError: the feature set was made for embeddings of another width.
        StoreError: an embedding is not finite or, if it is to be normalized, zero. For `StoredRows`, raised when they
            are used.
    """
    if view.dim != feature_set.input_dim:
        raise DictionaryError(
            f"feature set {feature_set.name!r} takes embeddings of width {feature_set.input_dim}, the store "
            f"{view.store.path} has {view.dim}: train one on this store with experiments/train.py"
        )
    compiled = _worth_compiling(view, feature_set, device)
    stored = compiled and isinstance(feature_set, RawFeatures) and _readable(view)
    if block_size is None:
        block_size = COMPILED_BLOCK if stored else 512 if torch.device(device).type == "cpu" else 8192

    def rows(embeddings: Tensor, modality: Modality, origin: Origin) -> Rows:
        if stored:
            return StoredRows(embeddings, normalize, origin)
        encoded = feature_set.encode(prepare(embeddings, normalize, device, origin), modality)
        return EncodedRows(encoded, modality) if compiled and encoded.dtype == torch.float32 else encoded

    for block in view.blocks(block_size, span):
        with torch.inference_mode():
            image, text = (
                rows(embeddings, modality, view.origin(modality, block.start))
                for embeddings, modality in zip((block.image, block.text), MODALITIES, strict=True)
            )
        yield ActivationBlock(block.start, image, text)


def _worth_compiling(view: FeatureView, feature_set: FeatureSet, device: str | torch.device) -> bool:
    enough = len(view) * feature_set.num_features >= WORTH_COMPILING
    return enough and torch.device(device).type == "cpu" and is_installed("numba", "llvmlite")


def _readable(view: FeatureView) -> bool:
    """Whether the kernels read embeddings in the type in which they are stored."""
    from mmmono.core import kernels

    return kernels.supports(view.store.dtype)
