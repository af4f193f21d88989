"""Multimodal TopK sparse autoencoder: one SAE that reconstructs both modalities (Eq. 2, 3; Appendix A.1).

Makhzani and Frey 2013 (k-sparse autoencoders), Gao et al. 2024 (Scaling and evaluating sparse autoencoders).
"""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.dictionaries.autoencoder import AutoencoderOutput, Biases, Codes, SparseAutoencoder
from mmmono.dictionaries.fused import reconstruction_loss
from mmmono.dictionaries.sparse import Pattern, SparseCodes, decode_sparse, encode_topk, topk
from mmmono.features.store import Modality

Kernel = Literal["auto", "sparse", "dense"]


class TopKSAE(SparseAutoencoder):
    """z_sae = TopK(ReLU(W_enc (z − b_pre))), ẑ = W_dec z_sae + b_pre.

    Eq. 2 has b_pre but no ReLU; the listing in Appendix A.1 has a ReLU but no b_pre. This class has both: the ReLU
    changes Eq. 2 only where fewer than k pre-activations are positive.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        k: active latents per sample.
        kernel: `sparse` gathers the active rows, `dense` multiplies whole matrices; `auto` is sparse on a CPU and dense
            on a GPU.
        biases: `pre_bias`, `center` and `encoder_bias`, see `SparseAutoencoder`.

    Raises:
        ValueError: `k` or `kernel` is invalid.
    """

    architecture = "topk_sae"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        k: int = 32,
        kernel: Kernel = "auto",
        **biases: Unpack[Biases],
    ) -> None:
        super().__init__(dim, num_features, **biases)
        if not 1 <= k <= self.num_features:
            raise ValueError(f"k={k} must lie between 1 and the {self.num_features} latents")
        if kernel not in ("auto", "sparse", "dense"):
            raise ValueError(f"kernel={kernel!r} is none of 'auto', 'sparse', 'dense'")
        self.k = k
        self.kernel: Kernel = kernel

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "k": self.k, "kernel": self.kernel}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Keep the k largest pre-activations of each sample, if they are positive."""
        return self._largest(activations).dense()

    def encode_sparse(self, z: Float[Tensor, "batch dim"], modality: Modality) -> SparseCodes:
        """Encode embeddings into sparse codes with at most k active latents (Eq. 2, left)."""
        return self.codes(z - self.bias_of(modality))

    def codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the sparse codes of embeddings minus b_pre."""
        if self._sparse(centered):
            return encode_topk(centered, self.W_enc, self.b_enc, self.k)
        return self._largest(F.linear(centered, self.W_enc, self.b_enc))

    def reconstruct(self, codes: Codes) -> Float[Tensor, "samples dim"]:
        """Return the reconstructions minus b_pre."""
        if isinstance(codes, SparseCodes) and self._sparse(codes.values):
            return decode_sparse(codes, self.W_dec)
        return super().reconstruct(codes)

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs (Eq. 3), with hand-written gradients where the sparse kernels are used."""
        # The hand-written gradients do not reach the embeddings; if those require gradients, use autograd.
        if not self._sparse(image) or image.requires_grad or text.requires_grad:
            return super().forward(image, text)
        centered = self._centered(image, text)
        error, residual, codes = reconstruction_loss(centered, self.b_pre, self.W_enc, self.b_enc, self.W_dec, self.k)
        return AutoencoderOutput(error / len(image), centered.detach(), residual.detach(), codes)

    @torch.no_grad()
    def _centered(self, image: Tensor, text: Tensor) -> Tensor:
        """Embeddings of both modalities minus b_pre, written directly into one tensor."""
        centered = self.b_pre.new_empty(len(image) + len(text), self.dim)
        torch.sub(image, self.bias_of("image"), out=centered[: len(image)])
        torch.sub(text, self.bias_of("text"), out=centered[len(image) :])
        return centered

    def _sparse(self, z: Tensor) -> bool:
        return self.kernel == "sparse" or (self.kernel == "auto" and z.device.type == "cpu")

    def _largest(self, activations: Tensor) -> SparseCodes:
        values, indices = topk(activations, self.k)
        return SparseCodes(values.relu(), Pattern(indices, self.num_features))
