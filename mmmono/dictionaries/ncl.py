"""Multimodal non-negative contrastive learning (NCL): a head with non-negative features, trained on pairs (Eq. 4).

Applies Wang et al. 2024 (Non-negative Contrastive Learning, ICLR) to image-text pairs; Section 3.1 and Appendix A.1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.finite import check_tensor
from mmmono.dictionaries.base import Dictionary, check_sizes
from mmmono.features.store import Modality

Similarity = Literal["cosine", "dot"]
MAX_LOGIT_SCALE = math.log(100.0)  # CLIP's bound on the inverse temperature


class NCLHead(Dictionary):
    """z_ncl = ReLU(W₂ ReLU(LayerNorm(W₁ z + b₁)) + b₂), one head for both modalities.

    Args:
        dim: width of the embeddings.
        num_features: number of features; default `dim`, as in the paper.
        layer_norm: apply LayerNorm, as in the listing of Appendix A.1 but not in the formula below Eq. 4.
        rep_relu: use GELU's gradient in the last ReLU, so that inactive units can recover.
        similarity: `cosine` normalizes the features before their dot product, like CLIP and the code of Wang et al.;
            `dot` is Eq. 4 as printed.
    """

    architecture = "ncl"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        layer_norm: bool = True,
        rep_relu: bool = False,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity={similarity!r} is neither 'cosine' nor 'dot'")
        self.dim, self.num_features = check_sizes(dim, num_features)
        self.layer_norm = layer_norm
        self.rep_relu = rep_relu
        self.similarity = similarity
        self.projector = nn.Sequential(
            nn.Linear(dim, dim),
            nn.LayerNorm(dim) if layer_norm else nn.Identity(),
            nn.ReLU(),
            nn.Linear(dim, self.num_features),
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def config(self) -> dict[str, int | bool | str]:
        """Constructor arguments of this head."""
        return {
            "dim": self.dim,
            "num_features": self.num_features,
            "layer_norm": self.layer_norm,
            "rep_relu": self.rep_relu,
            "similarity": self.similarity,
        }

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Encode embeddings into non-negative features; the head is the same for both modalities."""
        z = self.projector(self.fitting(z, self.dim, "embeddings"))
        return rep_relu(z) if self.rep_relu else z.relu()

    def loss(
        self, image_codes: Float[Tensor, "pairs features"], text_codes: Float[Tensor, "pairs features"]
    ) -> Float[Tensor, ""]:
        """Loss of Eq. 4 in both directions with a learned temperature as in CLIP; at least in float32."""
        with torch.autocast(image_codes.device.type, enabled=False):
            return self._loss(at_least_float32(image_codes), at_least_float32(text_codes))

    def _loss(self, image_codes: Tensor, text_codes: Tensor) -> Tensor:
        if self.similarity == "cosine":
            image_codes, text_codes = F.normalize(image_codes, dim=1), F.normalize(text_codes, dim=1)
        return contrastive_loss(image_codes, text_codes, self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp())


def at_least_float32(x: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; leave other types unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rep_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ReLU in the forward pass, GELU in the backward pass: the remedy of Wang et al. against dead units."""
    soft = F.gelu(x)
    return soft + (x.relu() - soft).detach()


def contrastive_loss(
    image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"], scale: Float[Tensor, ""] | float = 1.0
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss: cross-entropy of matching images to texts and texts to images, averaged.

    The denominator is a sum over the batch; Eq. 4 has a mean, which only subtracts the constant log(pairs).

    Args:
        image, text: features; row i of both belongs to pair i.
        scale: factor of the dot products (inverse temperature).

    Raises:
        TypeError: a side is no tensor, or they are not of one floating type.
        ValueError: the shapes differ.
    """
    for side, name in ((image, "image"), (text, "text")):
        check_tensor(side, name)
    if not (image.dtype == text.dtype and image.is_floating_point()):
        raise TypeError(
            f"features of one floating type expected, got {image.dtype}, {text.dtype}: give image.float(), …"
        )
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(f"paired features [pairs, dim] expected, got {tuple(image.shape)}, {tuple(text.shape)}")
    logits = scale * image @ text.T
    target = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
