"""Controls: invertible linear maps of the embeddings, which are sparser or merely different, but learn no dictionary."""

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

SINGULAR = 1e-6  # directions whose spread is smaller, relative to the largest, hold float32 rounding and nothing else


class LinearMap(Dictionary):
    """Features (z − offset) Wᵀ, and back by W's inverse. The map itself is fitted by one of the functions below.

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
        """The map with these weights; its way back is their pseudo-inverse."""
        linear = cls(forward_map.shape[1], forward_map.shape[0])
        linear.forward_map.copy_(forward_map)
        linear.backward_map.copy_(torch.linalg.pinv(forward_map.double()))
        if offset is not None:
            linear.offset.copy_(offset)
        return linear

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Features, of either sign; the same map for both modalities."""
        return (z - self.offset) @ self.forward_map.T

    def decode(self, codes: Float[Tensor, "batch features"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """The embeddings again: exactly, where there are as many features as dimensions."""
        return codes @ self.backward_map.T + self.offset

    def config(self) -> dict[str, Any]:
        """Width on both sides."""
        return {"dim": self.dim, "num_features": self.num_features}


def random_rotation(dim: int, seed: int = 0) -> LinearMap:
    """A rotation drawn uniformly: as informative as the embeddings, with axes that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return LinearMap.of((q * r.diagonal().sign()).float())  # the signs make the distribution uniform (Mezzadri 2007)


def fit_pca(embeddings: Float[Tensor, "samples dim"]) -> LinearMap:
    """Principal components of both modalities' embeddings together.

    Raises:
        ConfigError: fewer samples than dimensions, or embeddings that are all equal.
        NonFiniteError: a number is NaN or infinite.
    """
    _check(embeddings, "pca")
    pca = PCA(svd_solver="full").fit(double(embeddings).cpu().numpy())
    return LinearMap.of(torch.from_numpy(pca.components_).float(), torch.from_numpy(pca.mean_).float())


def fit_ica(embeddings: Float[Tensor, "samples dim"], max_iter: int = 200, seed: int = 0) -> LinearMap:
    """Independent components (FastICA) of both modalities' embeddings together.

    Signs are chosen so that each component's longer tail is positive, where top samples are taken. There are as many
    components as the embeddings have directions in which they vary: fewer than dimensions where one is constant, or a
    combination of others.

    Raises:
        ConfigError: fewer samples than dimensions, or embeddings that are all equal.
        NonFiniteError: a number is NaN or infinite.
    """
    _check(embeddings, "ica")
    values = double(embeddings).cpu().numpy()
    scales = np.linalg.svd(values - values.mean(0), compute_uv=False)
    components = int((scales > SINGULAR * scales[0]).sum())
    ica = FastICA(components, whiten="unit-variance", max_iter=max_iter, random_state=seed, tol=1e-3)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):  # by spreads of 0, then left out
        # With hundreds of components some never settle, which a control can live with.
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
