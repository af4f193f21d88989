"""Linear controls for learned dictionaries: a shift of the embeddings, a random rotation, random directions, PCA and ICA."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.errors import ConfigError
from mmmono.core.finite import check_finite, double
from mmmono.core.ranges import check_whole
from mmmono.dictionaries.base import Dictionary, check_sizes
from mmmono.features.shards import Modality, number_of

SINGULAR = 1e-6  # smaller singular values, relative to the largest, are float32 rounding errors


class CenteredEmbeddings(Dictionary):
    """The embedding's own dimensions minus a mean, which `decode` adds again.

    Args:
        dim: width of the embeddings.
    """

    architecture = "centered"
    offset: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.num_features = check_sizes(dim, None)
        self.register_buffer("offset", torch.zeros(2, dim))  # rows in the order of MODALITIES

    @classmethod
    def of(cls, means: Float[Tensor, "2 dim"]) -> CenteredEmbeddings:
        """Make the map from what it subtracts from image embeddings, and from text embeddings."""
        centered = cls(means.shape[1])
        centered.offset.copy_(means)
        return centered

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Embeddings minus the mean of their modality."""
        return self.fitting(z, self.dim, "embeddings") - self.offset[number_of(modality)]

    def decode(self, codes: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Features plus the mean of their modality: the embeddings, up to rounding."""
        return self.fitting(codes, self.num_features, "codes") + self.offset[number_of(modality)]

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this map."""
        return {"dim": self.dim}


class LinearMap(Dictionary):
    """Features (z − offset) Wᵀ, decoded with the pseudo-inverse of W. The functions below make such maps.

    Args:
        dim: width of the embeddings.
        num_features: number of features.
        per_modality: whether images and texts have offsets of their own.
    """

    architecture = "linear"
    offset: Tensor
    forward_map: Tensor
    backward_map: Tensor

    def __init__(self, dim: int, num_features: int, per_modality: bool = False) -> None:
        super().__init__()
        self.dim, self.num_features = check_sizes(dim, num_features)
        self.per_modality = per_modality
        # One for both modalities, or one row per modality in the order of MODALITIES.
        self.register_buffer("offset", torch.zeros(2, dim) if per_modality else torch.zeros(dim))
        self.register_buffer("forward_map", torch.zeros(num_features, dim))
        self.register_buffer("backward_map", torch.zeros(dim, num_features))

    @classmethod
    def of(
        cls,
        forward_map: Float[Tensor, "features dim"],
        offset: Float[Tensor, " dim"] | Float[Tensor, "2 dim"] | None = None,
    ) -> LinearMap:
        """Make a map from its weights W and its offset: one (default: zeros), or one for images and one for texts."""
        linear = cls(forward_map.shape[1], forward_map.shape[0], offset is not None and offset.ndim == 2)
        linear.forward_map.copy_(forward_map)
        linear.backward_map.copy_(torch.linalg.pinv(forward_map.double()))
        if offset is not None:
            linear.offset.copy_(offset)
        return linear

    def after(self, means: Float[Tensor, "2 dim"]) -> LinearMap:
        """Return this map of embeddings from which means, of images and of texts, are subtracted first."""
        return LinearMap.of(self.forward_map, self.offset + means)

    def offset_of(self, modality: Modality) -> Float[Tensor, " dim"]:
        """What is subtracted from embeddings of a modality."""
        return self.offset[number_of(modality)] if self.per_modality else self.offset

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Signed features; W is the same for both modalities."""
        return (self.fitting(z, self.dim, "embeddings") - self.offset_of(modality)) @ self.forward_map.T

    def decode(self, codes: Float[Tensor, "batch features"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct the embeddings; exact if there are as many features as dimensions."""
        return self.fitting(codes, self.num_features, "codes") @ self.backward_map.T + self.offset_of(modality)

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this map."""
        own = {"per_modality": True} if self.per_modality else {}
        return {"dim": self.dim, "num_features": self.num_features, **own}


def random_rotation(dim: int, seed: int = 0) -> LinearMap:
    """Draw a uniformly random orthogonal map: it keeps all information, but its axes are arbitrary."""
    check_whole("dim", dim)
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return LinearMap.of((q * r.diagonal().sign()).float())  # the signs make it uniform (Mezzadri 2007)


def random_directions(dim: int, count: int, seed: int = 0) -> LinearMap:
    """Draw features of length 1 in uniformly random directions, of which there may be more than dimensions."""
    check_whole("dim", dim)
    check_whole("count", count)
    generator = torch.Generator().manual_seed(seed)
    return LinearMap.of(F.normalize(torch.randn(count, dim, generator=generator), dim=1))


def fit_pca(embeddings: Float[Tensor, "samples dim"]) -> LinearMap:
    """Fit principal components to the embeddings of both modalities together.

    Raises:
        ConfigError: there are no more samples than dimensions, or all embeddings are equal.
        NonFiniteError: an embedding is NaN or infinite.
    """
    _check(embeddings, "pca")
    from sklearn.decomposition import PCA  # not at the top: it takes a second

    pca = PCA(svd_solver="full").fit(double(embeddings).cpu().numpy())
    return LinearMap.of(torch.from_numpy(pca.components_).float(), torch.from_numpy(pca.mean_).float())


def fit_ica(embeddings: Float[Tensor, "samples dim"], max_iter: int = 200, seed: int = 0) -> LinearMap:
    """Fit independent components (FastICA) to the embeddings of both modalities together.

    Each component's sign makes its skewness positive, because top samples are taken from the positive tail. The number
    of components is the rank of the centered embeddings; it is below `dim` if dimensions are constant or collinear.

    Raises:
        ConfigError: there are no more samples than dimensions, or all embeddings are equal.
        NonFiniteError: an embedding is NaN or infinite.
    """
    check_whole("max_iter", max_iter)
    _check(embeddings, "ica")
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    values = double(embeddings).cpu().numpy()
    scales = np.linalg.svd(values - values.mean(0), compute_uv=False)
    components = int((scales > SINGULAR * scales[0]).sum())
    ica = FastICA(components, whiten="unit-variance", max_iter=max_iter, random_state=seed, tol=1e-3)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # Whitening divides by singular values of 0, whose components are then dropped. With hundreds of components,
        # some never converge; a control tolerates that.
        warnings.simplefilter("ignore", ConvergenceWarning)
        sources = ica.fit_transform(values)
    signs = np.where((sources**3).mean(0) < 0, -1.0, 1.0)
    return LinearMap.of(torch.from_numpy(ica.components_ * signs[:, None]).float(), torch.from_numpy(ica.mean_).float())


def _check(embeddings: Tensor, name: str) -> None:
    samples, dim = embeddings.shape
    if samples <= dim:
        raise ConfigError(f"features={name} needs more samples than dimensions, but there are {samples} for {dim}")
    check_finite(embeddings, "embedding", column="dimension")
    if bool((embeddings == embeddings[:1]).all()):
        raise ConfigError(f"features={name} needs embeddings that differ, but all {samples} are equal")
