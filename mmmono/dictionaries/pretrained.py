"""A sparse autoencoder that another library trained: it encodes and decodes as that library does, and trains no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.base import Dictionary, unfitting
from mmmono.dictionaries.sparse import Pattern, SparseCodes, topk
from mmmono.features.store import Modality

ACTIVATIONS = ("relu", "topk", "groupmax", "threshold", "gated", "matching_pursuit")
INPUT_NORMS = ("none", "constant", "layer_norm")


@dataclass(frozen=True)
class Encoding:
    """How a dictionary of another library encodes.

    Attributes:
        activation: what makes codes of pre-activations π: `relu`; `topk`, the k largest of ReLU(π) per sample;
            `groupmax`, the largest of ReLU(π) of each of k equal runs of latents; `threshold`, those of ReLU(π) above each
            latent's threshold; `gated`, see `GatedSAE`; or `matching_pursuit`, which has no pre-activations.
        k: active latents per sample, or steps of the pursuit; None where there is no such number.
        input_norm: what is done to each embedding first: `none`; `constant` scales it to the length √d; `layer_norm`
            subtracts its mean and divides by its standard deviation.
        soft_cap: s of s · tanh(code / s), which is applied to codes; 0 for none.
        smallest_residual: length of the residual below which the pursuit of a sample ends; 0 for none.
        stop_without_change: end the pursuit of a sample once a step adds no new latent.
    """

    activation: Literal["relu", "topk", "groupmax", "threshold", "gated", "matching_pursuit"]
    k: int | None = None
    input_norm: Literal["none", "constant", "layer_norm"] = "none"
    soft_cap: float = 0.0
    smallest_residual: float = 0.0
    stop_without_change: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("activation", self.activation, ACTIVATIONS),
            ("input_norm", self.input_norm, INPUT_NORMS),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is none of {', '.join(allowed)}")
        if self.activation in ("topk", "groupmax", "matching_pursuit") and (self.k is None or self.k < 1):
            raise ValueError(f"k={self.k} must be at least 1 for {self.activation}")


class PretrainedSAE(Dictionary):
    """codes = activation(W_enc (norm(z) − shift) + b_enc), ẑ = W_decᵀ codes + b_dec, one for both modalities.

    Codes have the scale that the other library gives them: atoms may have any length, so the largest code is not
    necessarily that of the latent which adds most to the reconstruction.

    Args:
        dim: width of the embeddings, d.
        num_features: number of latents.
        origin: where the weights come from, for people.
        encoding: fields of `Encoding`.

    Raises:
        ValueError: a field is invalid.
    """

    architecture = "pretrained_sae"
    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    shift: Tensor
    b_dec: Tensor
    threshold: Tensor
    r_mag: Tensor
    b_mag: Tensor

    def __init__(self, dim: int, num_features: int, origin: str = "", **encoding: Any) -> None:
        super().__init__()
        self.dim = dim
        self.num_features = num_features
        self.origin = origin
        self.encoding = Encoding(**encoding)
        if (
            self.encoding.k is not None
            and self.encoding.k > num_features
            and self.encoding.activation != "matching_pursuit"
        ):
            raise ValueError(f"k={self.encoding.k} is more than its {num_features} latents")
        if self.encoding.activation == "groupmax" and num_features % (self.encoding.k or 1):
            raise ValueError(f"k={self.encoding.k} groups cannot share {num_features} latents equally")
        for name, shape in self.shapes().items():
            self.register_buffer(name, torch.zeros(shape))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        n, d = self.num_features, self.dim
        own = {"threshold": ["threshold"], "gated": ["r_mag", "b_mag"]}.get(self.encoding.activation, [])
        encoder = {} if self.encoding.activation == "matching_pursuit" else {"W_enc": (n, d), "b_enc": (n,)}
        return {**encoder, "W_dec": (n, d), "shift": (d,), "b_dec": (d,), **dict.fromkeys(own, (n,))}

    @classmethod
    def of(cls, origin: str, encoding: Mapping[str, Any], weights: Mapping[str, Tensor]) -> PretrainedSAE:
        """Make a dictionary from tensors of any precision, which become float32.

        Args:
            origin: file or repository that the weights come from; begins error messages.
            encoding: fields of `Encoding`.
            weights: `W_dec`, whose shape gives the width and the number of latents, and the others of `shapes`.

        Raises:
            DictionaryError: a field is invalid, or a tensor is missing, unknown, of another shape or not finite.
        """
        if "W_dec" not in weights or weights["W_dec"].ndim != 2:
            raise DictionaryError(f"{origin}: W_dec is missing, or no matrix")
        n, d = weights["W_dec"].shape
        try:
            made = cls(d, n, origin, **encoding)
        except (TypeError, ValueError) as error:
            raise DictionaryError(f"{origin}: {error}") from error
        if wrong := unfitting(weights, made.state_dict()):
            raise DictionaryError(f"{origin}: tensors do not fit each other: {wrong}")
        for name, weight in weights.items():
            if not bool(torch.isfinite(weight).all()):
                raise DictionaryError(f"{origin}: {name} holds NaN or infinite numbers: its training diverged")
        made.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return made.eval()

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this dictionary."""
        return {"dim": self.dim, "num_features": self.num_features, "origin": self.origin, **asdict(self.encoding)}

    @property
    def atoms(self) -> Float[Tensor, "latents dim"]:
        """Decoder rows, scaled to unit norm."""
        return F.normalize(self.W_dec, dim=1)

    @property
    def decodes(self) -> bool:
        """Whether codes alone can be decoded; with `layer_norm`, the embedding's mean and deviation are missing."""
        return self.encoding.input_norm != "layer_norm"

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch latents"]:
        """Encode embeddings into codes."""
        centered = self._normed(self.fitting(z, self.dim, "embeddings")) - self.shift
        if self.encoding.activation == "matching_pursuit":
            return self._pursue(centered)
        codes = self._activate(F.linear(centered, self.W_enc, self.b_enc))
        cap = self.encoding.soft_cap
        return cap * (codes / cap).tanh() if cap else codes

    def decode(self, codes: Float[Tensor, "batch latents"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct embeddings from codes; with the input norm `constant`, embeddings of length 1.

        Raises:
            DictionaryError: the dictionary normalizes each embedding in a way that its codes do not tell.
        """
        if not self.decodes:
            raise DictionaryError(
                f"{self.origin}: normalize_activations='layer_norm' divides each embedding by its own deviation, which "
                "codes do not tell: it can encode, but not decode"
            )
        return self._scaled(self.fitting(codes, self.num_features, "codes") @ self.W_dec + self.b_dec)

    def decode_each(self, chosen: Int64[Tensor, " chosen"], modality: Modality) -> Float[Tensor, "chosen dim"] | None:
        """Return what `decode` makes of one code of 1: a row of W_dec, plus b_dec."""
        return self._scaled(self.W_dec[chosen.to(self.W_dec.device)] + self.b_dec) if self.decodes else None

    def _scaled(self, decoded: Tensor) -> Tensor:
        return decoded / math.sqrt(self.dim) if self.encoding.input_norm == "constant" else decoded

    def _normed(self, z: Tensor) -> Tensor:
        if self.encoding.input_norm == "constant":
            return z * (math.sqrt(self.dim) / torch.linalg.vector_norm(z, dim=1, keepdim=True))
        if self.encoding.input_norm == "layer_norm":
            z = z - z.mean(1, keepdim=True)
            return z / (z.std(1, keepdim=True) + 1e-5)
        return z

    def _activate(self, activations: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch latents"]:
        kind, k = self.encoding.activation, self.encoding.k
        if kind == "gated":
            magnitudes = (self.r_mag.exp() * (activations - self.b_enc) + self.b_mag).relu()
            return (activations > 0) * magnitudes
        codes = activations.relu()
        if kind == "threshold":
            return codes * (activations > self.threshold)
        if kind == "topk":
            assert k is not None
            values, indices = topk(activations, k)
            return SparseCodes(values.relu(), Pattern(indices, self.num_features)).dense()
        if kind == "groupmax":
            groups = codes.unflatten(1, (k, -1))
            values, indices = groups.max(2, keepdim=True)
            return torch.zeros_like(groups).scatter(2, indices, values).flatten(1)
        return codes

    def _pursue(self, residual: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch latents"]:
        """Codes of matching pursuit; see `MatchingPursuitSAE`."""
        codes = residual.new_zeros(len(residual), self.num_features)
        going = torch.ones(len(residual), 1, dtype=torch.bool, device=residual.device)
        for _ in range(self.encoding.k or 0):
            values, chosen = (residual @ self.W_dec.T).relu().max(1, keepdim=True)
            values = values * going
            new = (codes.gather(1, chosen) == 0) & (values != 0)
            codes.scatter_add_(1, chosen, values)
            residual = residual - values * self.W_dec[chosen.squeeze(1)]
            if self.encoding.stop_without_change:
                going = going & new
            if self.encoding.smallest_residual > 0:
                lengths = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
                going = going & (lengths >= self.encoding.smallest_residual)
            if not bool(going.any()):
                break
        return codes
