"""Multimodal TopK sparse autoencoder: one dictionary that reconstructs both modalities (Eq. 2, 3; Appendix A.1).

Makhzani and Frey 2013 (k-sparse autoencoders), Gao et al. 2024 (Scaling and evaluating sparse autoencoders).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.fused import reconstruction_loss
from mmmono.dictionaries.parallel import place, sum_over_processes
from mmmono.dictionaries.sparse import Pattern, SparseCodes, decode_sparse, encode_topk, sum_by_latent, topk
from mmmono.features.store import MODALITIES, Modality

Center = Literal["pooled", "per_modality"]
Kernel = Literal["auto", "sparse", "dense"]


@dataclass(frozen=True)
class SAEOutput:
    """One forward pass over a batch of pairs; images are the first half of the rows, texts the second.

    Attributes:
        loss: Eq. 3.
        centered: embedding − b_pre, without gradient.
        residual: embedding − reconstruction, without gradient.
        codes: of both modalities.
    """

    loss: Float[Tensor, ""]
    centered: Float[Tensor, "samples dim"]
    residual: Float[Tensor, "samples dim"]
    codes: SparseCodes

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents a sample; at most k."""
        return (self.codes.values > 0).sum(1).float().mean()

    @property
    def fired(self) -> Bool[Tensor, "2 latents"]:
        """Which latents fired on some image, and on some text."""
        with torch.no_grad():
            return sum_by_latent(self.codes.values, self.codes.pattern, 2) > 0


class TopKSAE(Dictionary):
    """z_sae = TopK(ReLU(W_enc (z − b_pre))), ẑ = W_dec z_sae + b_pre.

    Eq. 2 has b_pre and no ReLU, the appendix' listing ReLU and no b_pre; this has both, and neither changes the other's
    case. Encoder and decoder start tied, decoder rows (atoms) have unit length.

    Args:
        dim: width of the embeddings, d.
        num_features: latents, n; d as in the paper if not given.
        k: active latents a sample.
        pre_bias: learn b_pre.
        center: one b_pre for both modalities (`pooled`), which leaves the modality gap in the codes, or one each.
        encoder_bias: add a bias to the latents, as the appendix' Linear does and Eq. 2 does not.
        kernel: `sparse` gathers, `dense` multiplies whole matrices, `auto` gathers on a CPU and multiplies on a GPU.
    """

    architecture = "topk_sae"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        k: int = 32,
        pre_bias: bool = True,
        center: Center = "pooled",
        encoder_bias: bool = False,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_features = num_features or dim
        if not 1 <= k <= self.num_features:
            raise ValueError(f"k={k} must lie between 1 and the {self.num_features} latents")
        if center not in ("pooled", "per_modality"):
            raise ValueError(f"center={center!r} is neither 'pooled' nor 'per_modality'")
        if kernel not in ("auto", "sparse", "dense"):
            raise ValueError(f"kernel={kernel!r} is none of 'auto', 'sparse', 'dense'")
        self.k = k
        self.center: Center = center
        self.kernel: Kernel = kernel
        atoms = F.normalize(torch.randn(self.num_features, dim), dim=1)
        self.W_enc = nn.Parameter(atoms.clone())
        self.W_dec = nn.Parameter(atoms)
        self.b_enc = nn.Parameter(torch.zeros(self.num_features)) if encoder_bias else None
        # One row for both modalities, or a row each in the order of MODALITIES.
        self.b_pre = nn.Parameter(torch.zeros(1 if center == "pooled" else 2, dim), requires_grad=pre_bias)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that make this SAE again."""
        return {
            "dim": self.dim,
            "num_features": self.num_features,
            "k": self.k,
            "pre_bias": self.b_pre.requires_grad,
            "center": self.center,
            "encoder_bias": self.b_enc is not None,
            "kernel": self.kernel,
        }

    @torch.no_grad()
    def initialize_pre_bias(self, image_mean: Float[Tensor, " dim"], text_mean: Float[Tensor, " dim"]) -> None:
        """Start b_pre at the data's mean: of both modalities together, or of each."""
        means = torch.stack([image_mean, text_mean])
        self.b_pre.copy_(means.mean(0, keepdim=True) if self.center == "pooled" else means)

    def bias_of(self, modality: Modality) -> Float[Tensor, "1 dim"]:
        """The modality's b_pre."""
        return self.b_pre if self.center == "pooled" else self.b_pre[MODALITIES.index(modality)].unsqueeze(0)

    def encode_sparse(self, z: Float[Tensor, "batch dim"], modality: Modality) -> SparseCodes:
        """The k active latents of each embedding (Eq. 2, left)."""
        return self._encode(z - self.bias_of(modality))

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch latents"]:
        """The same codes with their zeros."""
        return self.encode_sparse(z, modality).dense()

    def decode(self, codes: Float[Tensor, "batch latents"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruction from dense codes (Eq. 2, right)."""
        return codes @ self.W_dec + self.bias_of(modality)

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> SAEOutput:
        """Reconstruct a batch of pairs; Eq. 3 is the sum of both modalities' mean squared errors."""
        # b_pre is on both sides of ẑ − z: the error is that of the centered embeddings.
        # The written-out gradients stop at the embeddings; autograd's go on to whatever made them.
        if self._sparse(image) and not (image.requires_grad or text.requires_grad):
            centered = self._centered(image, text)
            error, residual, codes = reconstruction_loss(
                centered, self.b_pre, self.W_enc, self.b_enc, self.W_dec, self.k
            )
        else:
            centered = torch.cat([image - self.bias_of("image"), text - self.bias_of("text")])
            codes = self._encode(centered)
            residual = centered - self._decode(codes)
            error = residual.square().sum()
        return SAEOutput(error / len(image), centered.detach(), residual.detach(), codes)

    def auxiliary_loss(self, output: SAEOutput, dead: Bool[Tensor, " latents"], auxk: int) -> Float[Tensor, ""]:
        """AuxK (Gao et al. 2024): the `auxk` strongest dead latents reconstruct what the live ones left.

        The residual is detached, only dead latents take part, there is no bias, and the error is relative to the
        residual's variance. Where several processes share a batch, the mean of their losses is that of the whole one.
        """
        atoms = dead.nonzero().squeeze(1)
        residual = output.residual
        processes = place()[1]
        if len(atoms) == 0:
            return residual.new_zeros(())
        bias = None if self.b_enc is None else self.b_enc[atoms]
        activation = F.linear(output.centered, self.W_enc[atoms], bias)
        values, places = activation.topk(min(auxk, len(atoms)), dim=1, sorted=False)
        codes = torch.zeros_like(activation).scatter(1, places, values.relu())
        error = (residual - codes @ self.W_dec[atoms]).square().sum()
        mean = sum_over_processes(residual.mean(0)) / processes
        variance = sum_over_processes((residual - mean).square().sum())
        return (processes * error / variance).nan_to_num(0.0)

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Take from each atom's gradient its part along the atom, which would only change its length."""
        if self.W_dec.grad is not None:
            for grad, atoms in zip(self.W_dec.grad.split(1024), self.W_dec.split(1024), strict=True):
                grad.addcmul_((grad * atoms).sum(1, keepdim=True), atoms, value=-1)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Bring the atoms back to unit length."""
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True))

    @torch.no_grad()
    def _centered(self, image: Tensor, text: Tensor) -> Tensor:
        """Both modalities less their b_pre in one tensor, each written once."""
        centered = self.b_pre.new_empty(len(image) + len(text), self.dim)
        torch.sub(image, self.bias_of("image"), out=centered[: len(image)])
        torch.sub(text, self.bias_of("text"), out=centered[len(image) :])
        return centered

    def _sparse(self, z: Tensor) -> bool:
        return self.kernel == "sparse" or (self.kernel == "auto" and z.device.type == "cpu")

    def _encode(self, centered: Tensor) -> SparseCodes:
        if self._sparse(centered):
            return encode_topk(centered, self.W_enc, self.b_enc, self.k)
        values, indices = topk(F.linear(centered, self.W_enc, self.b_enc), self.k)
        return SparseCodes(values.relu(), Pattern(indices, self.num_features))

    def _decode(self, codes: SparseCodes) -> Tensor:
        return decode_sparse(codes, self.W_dec) if self._sparse(codes.values) else codes.dense() @ self.W_dec
