"""Feature sets: what turns embeddings of either modality into the features that everything downstream looks at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.core.extras import is_installed
from mmmono.features.rows import Rows, StoredRows, in_full, prepare
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES, Modality

# Activations of a modality from which on a pass gains more from compiled loops than the second that loading their
# compiler takes: a quarter of a million pairs of 1,024 features.
WORTH_COMPILING = 1 << 28
COMPILED_BLOCK = 16384  # pairs that are shared out among threads together, so many that waking those costs nothing


class FeatureSet(ABC):
    """Maps `[batch, input_dim]` embeddings to `[batch, num_features]` activations, and back where it can."""

    name: str
    input_dim: int
    num_features: int

    @abstractmethod
    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """Activations of the features on a batch of one modality; gradients flow."""

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """Embeddings that have these activations. Raises DictionaryError where there is no way back."""
        raise DictionaryError(f"feature set {self.name!r} has no decoder: use features=raw or features=sae")


class RawFeatures(FeatureSet):
    """The model's own dimensions: the identity."""

    name = "raw"

    def __init__(self, dim: int) -> None:
        self.input_dim = self.num_features = dim

    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """The embeddings themselves."""
        return embeddings

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """The activations themselves."""
        return activations


@dataclass(frozen=True)
class ActivationBlock:
    """Activations of consecutive pairs.

    Attributes:
        start: position of the first pair.
        image_rows, text_rows: activations, perhaps still as they are stored, for what takes them so.
    """

    start: int
    image_rows: Rows
    text_rows: Rows

    @cached_property
    def image(self) -> Float[Tensor, "rows features"]:
        """Activations of the images in float32."""
        return in_full(self.image_rows)

    @cached_property
    def text(self) -> Float[Tensor, "rows features"]:
        """Activations of the texts in float32."""
        return in_full(self.text_rows)

    def rows(self, modality: Modality) -> Rows:
        """Activations of one modality, perhaps still as they are stored."""
        return self.image_rows if modality == "image" else self.text_rows


def activations(
    view: FeatureView,
    feature_set: FeatureSet,
    *,
    normalize: bool = True,
    block_size: int | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[ActivationBlock]:
    """Stream a feature set's activations over a store, block by block.

    Long streams of raw features on a CPU come as they are stored, for compiled loops; a block's `image` and `text` are
    float32 tensors all the same.

    Args:
        view: the pairs to look at.
        feature_set: what to compute; without gradients.
        normalize: L2-normalize embeddings on reading; the store keeps raw ones.
        block_size: pairs a block; by default as many as a CPU's second-level cache takes, or enough to keep a GPU busy.
        device: where activations are computed and stay.

    Raises:
        DictionaryError: the feature set was made for embeddings of another width.
        StoreError: an embedding is not finite or, where it is to be normalized, zero; of rows that are left as they
            are stored, when they are worked on.
    """
    if view.dim != feature_set.input_dim:
        raise DictionaryError(
            f"feature set {feature_set.name!r} takes embeddings of width {feature_set.input_dim}, the store "
            f"{view.store.path} has {view.dim}: train one on this store with experiments/train.py"
        )
    compiled = _worth_compiling(view, feature_set, device)
    if block_size is None:
        block_size = COMPILED_BLOCK if compiled else 512 if torch.device(device).type == "cpu" else 8192
    for block in view.blocks(block_size):
        with torch.inference_mode():
            image, text = (
                StoredRows(embeddings, normalize, view.store.path, block.start)
                if compiled
                else feature_set.encode(prepare(embeddings, normalize, device, view.store.path, block.start), modality)
                for embeddings, modality in zip((block.image, block.text), MODALITIES, strict=True)
            )
        yield ActivationBlock(block.start, image, text)


def _worth_compiling(view: FeatureView, feature_set: FeatureSet, device: str | torch.device) -> bool:
    if not isinstance(feature_set, RawFeatures) or torch.device(device).type != "cpu":
        return False
    if len(view) * view.dim < WORTH_COMPILING or not is_installed("numba", "llvmlite"):
        return False
    from mmmono.core import kernels

    return kernels.takes(view.store.dtype)
