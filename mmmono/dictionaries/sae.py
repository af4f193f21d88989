"""Multimodal TopK sparse autoencoder: one SAE that reconstructs both modalities (Eq. 2, 3; Appendix A.1).

Makhzani and Frey 2013 (k-sparse autoencoders), Gao et al. 2024 (Scaling and evaluating sparse autoencoders).
"""

from __future__ import annotations

from typing import Unpack

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.dictionaries.autoencoder import Shared
from mmmono.dictionaries.selecting_sae import Kernel, SelectingSAE
from mmmono.dictionaries.selection import PerSample
from mmmono.dictionaries.sparse import SparseCodes, encode_topk


class TopKSAE(SelectingSAE):
    """z_sae = TopK(ReLU(W_enc (z − b_pre))), ẑ = W_dec z_sae + b_pre.

    Eq. 2 has b_pre but no ReLU; the listing in Appendix A.1 has a ReLU but no b_pre. This class has both: the ReLU
    changes Eq. 2 only where fewer than k pre-activations are positive.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        k: active latents per sample.
        kernel: `sparse` gathers the active rows, `dense` multiplies whole matrices; `auto` is sparse on a CPU and dense
            on a GPU.
        shared: further arguments of `SparseAutoencoder`.

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
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_features, PerSample(k), kernel, **shared)

    def codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the sparse codes of embeddings minus b_pre."""
        if self._sparse(centered):
            return encode_topk(centered, self.W_enc, self.b_enc, self.k)
        return self.selection.of(F.linear(centered, self.W_enc, self.b_enc))

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of a training batch: the same."""
        return self.codes(centered)
