"""Matching pursuit sparse autoencoder: codes are found one after the other, each in what the others have left.

Costa et al. 2025 (From flat to hierarchical: extracting sparse representations with matching pursuit, arXiv 2506.03093).
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.ranges import check_whole
from mmmono.dictionaries.autoencoder import DenseCodes, Shared, SparseAutoencoder


class MatchingPursuitSAE(SparseAutoencoder):
    """Encoding repeats k times: j = argmax_i ⟨atom_i, r⟩; code_j += ⟨atom_j, r⟩; r −= ⟨atom_j, r⟩ atom_j.

    The residual r is c at first. Codes of one sample thus explain away what the next would have encoded again. The
    encoder is the decoder. A product ⟨atom_j, r⟩ that is not positive adds nothing, so codes are not negative, and at most
    k of them are active.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        k: steps of the pursuit.
        shared: further arguments of `SparseAutoencoder`; `encoder` can only be `tied`, and there is no encoder bias.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "matching_pursuit_sae"

    def __init__(self, dim: int, num_features: int | None = None, k: int = 32, **shared: Unpack[Shared]) -> None:
        if shared.get("encoder", "tied") != "tied" or shared.get("encoder_bias"):
            raise ValueError("encoder must be tied, without encoder_bias: matching pursuit encodes with the atoms")
        shared["encoder"] = "tied"
        super().__init__(dim, num_features, **shared)
        check_whole("k", k, most=self.num_features, of="latents")
        self.k = k

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "k": self.k}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Return the codes of products with the atoms, W_dec c."""
        chosen, values = self._pursue(activations)
        return torch.zeros_like(activations).scatter_add(1, chosen, values)

    def codes(self, centered: Float[Tensor, "samples dim"]) -> DenseCodes:
        """Return the codes of embeddings minus b_pre; gradients flow through the products with the chosen atoms."""
        with torch.no_grad(), torch.autocast(centered.device.type, enabled=False):
            chosen, _ = self._pursue(centered @ self.W_dec.T)
        residual, values = centered, []
        for latents in chosen.unbind(1):
            atoms = self.W_dec[latents]
            values.append((residual * atoms).sum(1).relu())
            residual = residual - values[-1].unsqueeze(1) * atoms
        codes = residual.new_zeros(len(centered), self.num_features)
        return DenseCodes(codes.scatter_add(1, chosen, torch.stack(values, 1)))

    @torch.no_grad()
    def _pursue(
        self, products: Float[Tensor, "samples latents"]
    ) -> tuple[Int64[Tensor, "samples k"], Float[Tensor, "samples k"]]:
        """Latents and values of each step, from the first products; an atom's step moves all by its products with them.

        Of few samples, only products with the chosen atoms are computed.
        """
        products = products.clone()
        few = self.k * len(products) < self.num_features
        overlaps = None if few else self.W_dec @ self.W_dec.T
        chosen, values = [], []
        for _ in range(self.k):
            largest, latents = products.max(1)
            values.append(largest.relu())
            chosen.append(latents)
            of_chosen = self.W_dec[latents] @ self.W_dec.T if overlaps is None else overlaps[latents]
            products -= values[-1].unsqueeze(1) * of_chosen
        return torch.stack(chosen, 1), torch.stack(values, 1)
