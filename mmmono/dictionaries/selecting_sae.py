"""Base class of the sparse autoencoders that keep the largest pre-activations."""

from __future__ import annotations

from abc import ABC
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_whole
from mmmono.dictionaries.autoencoder import AutoencoderOutput, Codes, Shared, SparseAutoencoder, check_choice
from mmmono.dictionaries.fused import WHOLE, Levels, Weights, reconstruction_loss
from mmmono.dictionaries.selection import Selection
from mmmono.dictionaries.sparse import SparseCodes, decode_sparse

Kernel = Literal["auto", "sparse", "dense"]


class SelectingSAE(SparseAutoencoder, ABC):
    """A sparse autoencoder that keeps the largest pre-activations: k per sample, or as many on average.

    On a CPU its training step computes with the active latents alone.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        selection: which pre-activations of a training batch become codes.
        kernel: `sparse` gathers the active rows, `dense` multiplies whole matrices; `auto` is sparse on a CPU and dense
            on a GPU.
        shared: further arguments of `SparseAutoencoder`.

    Raises:
        ValueError: there are fewer latents than k, or an argument is invalid.
    """

    def __init__(
        self,
        dim: int,
        num_features: int | None,
        selection: Selection,
        kernel: Kernel,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_features, **shared)
        check_whole("k", selection.k, most=self.num_features, of="latents")
        check_choice("kernel", kernel, ("auto", "sparse", "dense"))
        self.selection = selection
        self.kernel: Kernel = kernel

    @property
    def k(self) -> int:
        """Active latents per sample, or on average."""
        return self.selection.k

    @property
    def levels(self) -> Levels:
        """Number of latents that each level of the loss reconstructs from, and its weight; see `reconstruction_loss`."""
        return WHOLE

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "k": self.k, "kernel": self.kernel}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Keep the pre-activations of the selection. A variant that encodes with others overrides this."""
        return self.selection.of(activations).dense()

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of a training batch."""
        return self.selection.of(F.linear(centered, self.W_enc, self.b_enc))

    def reconstruct(self, codes: Codes) -> Float[Tensor, "samples dim"]:
        """Return the reconstructions minus b_pre."""
        if isinstance(codes, SparseCodes) and self._sparse(codes.values):
            return decode_sparse(codes, self.W_dec)
        return super().reconstruct(codes)

    def squared_error(
        self, centered: Float[Tensor, "samples dim"], codes: Codes
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
        """Return the sum of squared errors of a training batch over all levels, and the residuals of the last one."""
        if len(self.levels) == 1:
            return super().squared_error(centered, codes)
        dense, residual, start = codes.dense(), centered, 0
        error = centered.new_zeros((), dtype=torch.float32)
        for end, weight in self.levels:
            residual = residual - dense[:, start:end] @ self.W_dec[start:end]
            error = error + weight * residual.square().sum()
            start = end or 0
        return error, residual

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs (Eq. 3), with hand-written gradients where the sparse kernels are used.

        Raises:
            TypeError, ValueError: see `SparseAutoencoder.forward`.
        """
        self.check_batch(image, text)
        # The hand-written gradients do not reach the embeddings; if those require gradients, use autograd.
        if not self._sparse(image) or image.requires_grad or text.requires_grad:
            return super().forward(image, text)
        centered = self._centered(image, text)
        codes = self.selection.choose(centered, self.W_enc, self.b_enc)
        weights = Weights(self.b_pre, self.W_enc, self.b_enc, self.W_dec)
        error, residual = reconstruction_loss(centered, weights, codes, self.levels)
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
