"""Base class of autoencoders whose latents have an atom in each modality."""

from __future__ import annotations

from abc import ABC
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_whole
from mmmono.dictionaries.autoencoder import AutoencoderOutput, Codes, Shared, SparseAutoencoder
from mmmono.dictionaries.base import check_sizes
from mmmono.dictionaries.selecting_sae import Kernel, SelectingSAE
from mmmono.dictionaries.selection import PerSample
from mmmono.dictionaries.sparse import Pattern, SparseCodes, decode_sparse, encode_topk
from mmmono.features.shards import MODALITIES, Modality, number_of


class TwoSidedSAE(SelectingSAE, ABC):
    """Two TopK autoencoders side by side: W_enc, W_dec, b_enc and b_pre of each modality, over the same latents.

    Latent i is one feature: its code of an image is by the image's weights, its code of a text by the text's. The weights
    of both lie in one tensor: the rows of all latents for images, then those of all latents for texts.

    Args:
        dim, num_features: see `SparseAutoencoder`; this many latents have twice as many rows of weights.
        k: active latents per sample.
        kernel: see `SelectingSAE`.
        shared: further arguments of `SparseAutoencoder`; `center` can only be `per_modality`.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        k: int = 32,
        kernel: Kernel = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        if shared.setdefault("center", "per_modality") != "per_modality":
            raise ValueError(f"center={shared['center']}: each side has a b_pre of its own, set center=per_modality")
        latents = check_sizes(dim, num_features)[1]
        check_whole("k", k, most=latents, of="latents")
        super().__init__(dim, 2 * latents, PerSample(k), kernel, **shared)
        self.num_features = latents

    @property
    def atoms(self) -> None:
        """None: a latent has two directions, those of `atoms_of`."""
        return None

    def atoms_of(self, modality: Modality) -> Float[Tensor, "latents dim"]:
        """Decoder rows of a modality, of unit norm: the direction that each latent stands for in it."""
        return self.W_dec[self._rows(modality)].detach()

    def _rows(self, modality: Modality) -> slice:
        """Rows of the weights that belong to a modality."""
        start = number_of(modality) * self.num_features
        return slice(start, start + self.num_features)

    def _encoder(self, modality: Modality) -> tuple[Tensor, Tensor | None]:
        rows = self._rows(modality)
        return self.W_enc[rows], None if self.b_enc is None else self.b_enc[rows]

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch latents"]:
        """Encode embeddings of one modality with its weights into dense codes, which include the zeros."""
        z = self.fitting(z, self.dim, "embeddings")
        return self._codes_of(z - self.bias_of(modality), modality).dense()

    def decode(self, codes: Float[Tensor, "batch latents"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct embeddings of one modality from dense codes, of either modality."""
        codes = self.fitting(codes, self.num_features, "codes")
        return codes @ self.W_dec[self._rows(modality)] + self.bias_of(modality)

    def decode_each(self, chosen: Int64[Tensor, " chosen"], modality: Modality) -> Float[Tensor, "chosen dim"] | None:
        """Return rows of the modality's decoder plus its b_pre; see `SparseAutoencoder.decode_each`."""
        if type(self).decode is not TwoSidedSAE.decode:
            return None
        rows = self.W_dec[self._rows(modality)]
        return rows[chosen.to(rows.device)] + self.bias_of(modality)

    def _codes_of(self, centered: Float[Tensor, "samples dim"], modality: Modality) -> SparseCodes:
        weight, bias = self._encoder(modality)
        if self._sparse(centered):
            return encode_topk(centered, weight, bias, self.k)
        return self.selection.of(F.linear(centered, weight, bias))

    def codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of pairs minus b_pre, the first half of the rows images and the second texts."""
        sides = [self._codes_of(side, m) for side, m in zip(centered.chunk(2), MODALITIES, strict=True)]
        indices = torch.cat([side.pattern.indices for side in sides])
        return SparseCodes(torch.cat([side.values for side in sides]), Pattern(indices, self.num_features))

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of a training batch of pairs: the same."""
        return self.codes(centered)

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs, each side by its own weights."""
        return SparseAutoencoder.forward(self, image, text)

    def reconstruct(self, codes: Codes) -> Float[Tensor, "samples dim"]:
        """Return the reconstructions of pairs minus b_pre, of the first half as images and of the second as texts."""
        assert isinstance(codes, SparseCodes)
        halves = zip(codes.values.chunk(2), codes.pattern.indices.chunk(2), strict=True)
        sides = [SparseCodes(values, Pattern(indices, self.num_features)) for values, indices in halves]
        decoders = [self.W_dec[self._rows(modality)] for modality in MODALITIES]
        if self._sparse(codes.values):
            return torch.cat([decode_sparse(side, decoder) for side, decoder in zip(sides, decoders, strict=True)])
        return torch.cat([side.dense() @ decoder for side, decoder in zip(sides, decoders, strict=True)])

    def reconstruct_from(
        self, centered: Float[Tensor, "samples dim"], rows: Int64[Tensor, " rows"], count: int
    ) -> Float[Tensor, "samples dim"]:
        """Reconstruct pairs minus b_pre from the `count` most active latents of some rows, each side from its own."""
        sides = zip(centered.chunk(2), (rows[rows < self.num_features], rows[rows >= self.num_features]), strict=True)
        return torch.cat([super(TwoSidedSAE, self).reconstruct_from(side, own, count) for side, own in sides])

    def dead_rows(self, silent: Bool[Tensor, "2 latents"]) -> Bool[Tensor, " rows"]:
        """Return the rows of both sides of latents that fire on neither."""
        return silent.all(0).repeat(2)
