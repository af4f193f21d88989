"""Multimodal TopK sparse autoencoder: one SAE that reconstructs both modalities (Eq. 2, 3; Appendix A.1).

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
    """Output of a forward pass over a batch of pairs; the first half of the rows are images, the second texts.

    Attributes:
        loss: loss of Eq. 3.
        centered: embedding − b_pre, without gradient.
        residual: embedding − reconstruction, without gradient.
        codes: sparse codes of both modalities.
    """

    loss: Float[Tensor, ""]
    centered: Float[Tensor, "samples dim"]
    residual: Float[Tensor, "samples dim"]
    codes: SparseCodes

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per sample; at most k."""
        return (self.codes.values > 0).sum(1).float().mean()

    @property
    def fired(self) -> Bool[Tensor, "2 latents"]:
        """Mask of the latents that fired on at least one image (row 0) and on at least one text (row 1)."""
        with torch.no_grad():
            return sum_by_latent(self.codes.values, self.codes.pattern, 2) > 0


class TopKSAE(Dictionary):
    """z_sae = TopK(ReLU(W_enc (z − b_pre))), ẑ = W_dec z_sae + b_pre.

    Eq. 2 has b_pre but no ReLU; the listing in Appendix A.1 has a ReLU but no b_pre. This class has both: the ReLU
    changes Eq. 2 only where fewer than k pre-activations are positive. Encoder and decoder start with the same weights;
    decoder rows (atoms) have unit norm.

    Args:
        dim: width of the embeddings, d.
        num_features: number of latents, n; default d, as in the paper.
        k: active latents per sample.
        pre_bias: learn b_pre.
        center: `pooled` learns one b_pre for both modalities, which leaves the modality gap in the codes;
            `per_modality` learns one for each.
        encoder_bias: add a bias to the pre-activations, which Eq. 2 does not have.
        kernel: `sparse` gathers the active rows, `dense` multiplies whole matrices; `auto` is sparse on a CPU and dense
            on a GPU.
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
        # One row for both modalities, or one row per modality in the order of MODALITIES.
        self.b_pre = nn.Parameter(torch.zeros(1 if center == "pooled" else 2, dim), requires_grad=pre_bias)

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
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
        """Set b_pre to the mean embedding: of both modalities (`pooled`) or of each (`per_modality`)."""
        means = torch.stack([image_mean, text_mean])
        self.b_pre.copy_(means.mean(0, keepdim=True) if self.center == "pooled" else means)

    def bias_of(self, modality: Modality) -> Float[Tensor, "1 dim"]:
        """b_pre of a modality."""
        return self.b_pre if self.center == "pooled" else self.b_pre[MODALITIES.index(modality)].unsqueeze(0)

    def encode_sparse(self, z: Float[Tensor, "batch dim"], modality: Modality) -> SparseCodes:
        """Encode embeddings into sparse codes with at most k active latents (Eq. 2, left)."""
        return self._encode(z - self.bias_of(modality))

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch latents"]:
        """Encode embeddings into dense codes, which include the zeros."""
        return self.encode_sparse(z, modality).dense()

    def decode(self, codes: Float[Tensor, "batch latents"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct embeddings from dense codes (Eq. 2, right)."""
        return codes @ self.W_dec + self.bias_of(modality)

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> SAEOutput:
        """Reconstruct a batch of pairs; the loss (Eq. 3) sums both modalities' squared errors, averaged over pairs."""
        # b_pre cancels in ẑ − z, so the error is computed on centered embeddings.
        # The hand-written gradients do not reach the embeddings; if those require gradients, use autograd.
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
        """AuxK loss (Gao et al. 2024): reconstruct the residual from the `auxk` most active dead latents.

        The loss is the squared error, without b_pre and with a detached residual, divided by the residual's variance;
        0 if no latent is dead. If processes share a batch, the mean of their losses is the loss of the whole batch.

        Args:
            output: forward pass of the batch.
            dead: mask of dead latents.
            auxk: dead latents per sample.
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
        """Remove from each atom's gradient the component along the atom, which would only change its norm."""
        if self.W_dec.grad is not None:
            for grad, atoms in zip(self.W_dec.grad.split(1024), self.W_dec.split(1024), strict=True):
                grad.addcmul_((grad * atoms).sum(1, keepdim=True), atoms, value=-1)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Normalize the atoms to unit norm, in place."""
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True))

    @torch.no_grad()
    def _centered(self, image: Tensor, text: Tensor) -> Tensor:
        """Embeddings of both modalities minus b_pre, written directly into one tensor."""
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
