"""Control features: linear maps of the embeddings (random rotation, PCA, ICA), without a learned dictionary."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.core.finite import check_finite, double
from mmmono.dictionaries.base import Dictionary
from mmmono.features.store import Modality

SINGULAR = 1e-6  # smaller singular values, relative to the largest, are float32 rounding errors


class LinearMap(Dictionary):
    """Features (z − offset) Wᵀ, decoded with the pseudo-inverse of W. The functions below make such maps.

    Args:
        dim: width of the embeddings.
        num_features: number of features.
    """

    architecture = "linear"
    offset: Tensor
    forward_map: Tensor
    backward_map: Tensor

    def __init__(self, dim: int, num_features: int) -> None:
        super().__init__()
        self.dim = dim
        self.num_features = num_features
        self.register_buffer("offset", torch.zeros(dim))
        self.register_buffer("forward_map", torch.zeros(num_features, dim))
        self.register_buffer("backward_map", torch.zeros(dim, num_features))

    @classmethod
    def of(cls, forward_map: Float[Tensor, "features dim"], offset: Float[Tensor, " dim"] | None = None) -> LinearMap:
        """Make a map from its weights W and its offset (default: zeros)."""
        linear = cls(forward_map.shape[1], forward_map.shape[0])
        linear.forward_map.copy_(forward_map)
        linear.backward_map.copy_(torch.linalg.pinv(forward_map.double()))
        if offset is not None:
            linear.offset.copy_(offset)
        return linear

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Signed features; the map is the same for both modalities."""
        return (z - self.offset) @ self.forward_map.T

    def decode(self, codes: Float[Tensor, "batch features"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct the embeddings; exact if there are as many features as dimensions."""
        return codes @ self.backward_map.T + self.offset

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this map."""
        return {"dim": self.dim, "num_features": self.num_features}


def random_rotation(dim: int, seed: int = 0) -> LinearMap:
    """Draw a uniformly random orthogonal map: it keeps all information, but its axes are arbitrary."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return LinearMap.of((q * r.diagonal().sign()).float())  # the signs make it uniform (Mezzadri 2007)


def fit_pca(embeddings: Float[Tensor, "samples dim"]) -> LinearMap:
    """Fit principal components to the embeddings of both modalities together.

    Raises:
        ConfigError: there are no more samples than dimensions, or all embeddings are equal.
        NonFiniteError: an embedding is NaN or infinite.
    """
    _check(embeddings, "pca")
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
    _check(embeddings, "ica")
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
