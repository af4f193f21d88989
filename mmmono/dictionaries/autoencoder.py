"""Base class of sparse autoencoders. A subclass says how codes are computed from pre-activations.

Decoder rows (atoms) have unit norm. Gao et al. 2024 (Scaling and evaluating sparse autoencoders) for the auxiliary loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.finite import check_tensor
from mmmono.dictionaries.base import Dictionary, check_sizes
from mmmono.dictionaries.parallel import place, sum_over_processes
from mmmono.features.shards import Modality, number_of

Center = Literal["pooled", "per_modality"]
Encoder = Literal["transposed", "independent", "tied"]
Frozen = Literal["none", "encoder", "decoder"]


class Shared(TypedDict, total=False):
    """Arguments of `SparseAutoencoder` that all variants take."""

    pre_bias: bool
    center: Center
    encoder_bias: bool
    encoder: Encoder
    frozen: Frozen


@dataclass(frozen=True)
class SharedSettings:
    """What all variants can be told; see `SparseAutoencoder`."""

    pre_bias: bool = True
    center: Center = "pooled"
    encoder_bias: bool = False
    encoder: Encoder = "transposed"
    frozen: Frozen = "none"

    def __post_init__(self) -> None:
        check_choice("center", self.center, ("pooled", "per_modality"))
        check_choice("encoder", self.encoder, ("transposed", "independent", "tied"))
        check_choice("frozen", self.frozen, ("none", "encoder", "decoder"))
        if self.encoder == "tied" and self.frozen != "none":
            raise ValueError(
                f"frozen={self.frozen} would freeze both weights, because encoder=tied: choose another encoder"
            )


class Codes(Protocol):
    """Codes of a batch, in any form: dense, a fixed number per sample, or a varying one."""

    def dense(self) -> Float[Tensor, "samples latents"]:
        """The codes as a matrix, which includes the zeros."""
        ...

    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per sample."""
        ...

    def fired(self, groups: int) -> Bool[Tensor, "groups latents"]:
        """Mask of the latents that fired in each of `groups` equal blocks of samples."""
        ...


@dataclass(frozen=True)
class DenseCodes:
    """Codes as a matrix, of any number of active latents per sample.

    Attributes:
        values: the matrix.
        penalty: sum over samples of what training adds to the squared error, such as for sparse codes; None for nothing.
    """

    values: Float[Tensor, "samples latents"]
    penalty: Float[Tensor, ""] | None = None

    def dense(self) -> Float[Tensor, "samples latents"]:
        """The matrix itself."""
        return self.values

    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per sample."""
        return (self.values > 0).sum(1).float().mean()

    def fired(self, groups: int) -> Bool[Tensor, "groups latents"]:
        """Mask of the latents that fired in each of `groups` equal blocks of samples."""
        return torch.stack([(part > 0).any(0) for part in self.values.chunk(groups)])


@dataclass(frozen=True)
class AutoencoderOutput:
    """Output of a forward pass over a batch of pairs; the first half of the rows are images, the second texts.

    Attributes:
        loss: loss of Eq. 3, without the penalty.
        centered: embedding − b_pre, without gradient.
        residual: embedding − reconstruction, without gradient.
        codes: codes of both modalities.
        penalty: what training adds to the loss beside the reconstruction; None for nothing.
    """

    loss: Float[Tensor, ""]
    centered: Float[Tensor, "samples dim"]
    residual: Float[Tensor, "samples dim"]
    codes: Codes
    penalty: Float[Tensor, ""] | None = None

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per sample."""
        return self.codes.l0()

    @property
    def fired(self) -> Bool[Tensor, "2 latents"]:
        """Mask of the latents that fired on at least one image (row 0) and on at least one text (row 1)."""
        with torch.no_grad():
            return self.codes.fired(2)


class SparseAutoencoder(Dictionary, ABC):
    """Codes = activate(W_enc (z − b_pre) + b_enc), ẑ = W_dec codes + b_pre. A variant defines `activate`.

    Args:
        dim: width of the embeddings, d.
        num_features: number of latents, n; default d, as in the paper.
        pre_bias: learn b_pre.
        center: `pooled` learns one b_pre for both modalities, which leaves the modality gap in the codes;
            `per_modality` learns one for each.
        encoder_bias: learn b_enc, which Eq. 2 does not have.
        encoder: `transposed` starts with the decoder's weights, `independent` with others, and `tied` always has the
            decoder's weights.
        frozen: which weights keep their random start: `none`, the `encoder`'s (with b_enc) or the `decoder`'s. The other
            two are controls: a score that they reach as well is no merit of learned directions (Korznikov et al. 2026,
            Sanity checks for sparse autoencoders, arXiv 2602.14111).

    Raises:
        ValueError: a size is no whole number from 1 on, an argument is none of these, or a tied encoder is to be frozen.
    """

    def __init__(self, dim: int, num_features: int | None = None, **shared: Unpack[Shared]) -> None:
        super().__init__()
        self.dim, self.num_features = check_sizes(dim, num_features)
        self.shared = SharedSettings(**shared)
        encoder, frozen = self.shared.encoder, self.shared.frozen
        atoms = F.normalize(torch.randn(self.num_features, dim), dim=1)
        start = F.normalize(torch.randn_like(atoms), dim=1) if encoder == "independent" else atoms.clone()
        self.W_enc = nn.Parameter(start, requires_grad=frozen != "encoder")
        self.W_dec = self.W_enc if encoder == "tied" else nn.Parameter(atoms, requires_grad=frozen != "decoder")
        zeros = torch.zeros(self.num_features)
        self.b_enc = nn.Parameter(zeros, requires_grad=frozen != "encoder") if self.shared.encoder_bias else None
        # One row for both modalities, or one row per modality in the order of MODALITIES.
        groups = 1 if self.center == "pooled" else 2
        self.b_pre = nn.Parameter(torch.zeros(groups, dim), requires_grad=self.shared.pre_bias)

    @property
    def center(self) -> Center:
        """Whether there is one b_pre, or one for each modality."""
        return self.shared.center

    @abstractmethod
    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Return the codes, which are not negative, of pre-activations."""

    @property
    def atoms(self) -> Float[Tensor, "latents dim"] | None:
        """Decoder rows, of unit norm: the direction that each latent stands for."""
        return self.W_dec.detach()

    def config(self) -> dict[str, Any]:
        """Constructor arguments that all variants share."""
        return {"dim": self.dim, "num_features": self.num_features, **asdict(self.shared)}

    @torch.no_grad()
    def initialize_pre_bias(self, image_mean: Float[Tensor, " dim"], text_mean: Float[Tensor, " dim"]) -> None:
        """Set b_pre to the mean embedding: of both modalities (`pooled`) or of each (`per_modality`)."""
        means = torch.stack([image_mean, text_mean])
        self.b_pre.copy_(means.mean(0, keepdim=True) if self.center == "pooled" else means)

    def bias_of(self, modality: Modality) -> Float[Tensor, "1 dim"]:
        """b_pre of a modality. Raises ValueError if it is none."""
        row = number_of(modality)
        return self.b_pre if self.center == "pooled" else self.b_pre[row].unsqueeze(0)

    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch latents"]:
        """Encode embeddings into dense codes, which include the zeros (Eq. 2, left)."""
        return self.codes(self.fitting(z, self.dim, "embeddings") - self.bias_of(modality)).dense()

    def decode(self, codes: Float[Tensor, "batch latents"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct embeddings from dense codes (Eq. 2, right)."""
        return self.fitting(codes, self.num_features, "codes") @ self.W_dec + self.bias_of(modality)

    def decode_each(self, chosen: Int64[Tensor, " chosen"], modality: Modality) -> Float[Tensor, "chosen dim"] | None:
        """Return rows of the decoder plus b_pre: what `decode` makes of one code of 1, without a matrix of such codes."""
        if type(self).decode is not SparseAutoencoder.decode:  # a variant has another decoder
            return None
        return self.W_dec[chosen.to(self.W_dec.device)] + self.bias_of(modality)

    def codes(self, centered: Float[Tensor, "samples dim"]) -> Codes:
        """Return the codes of embeddings minus b_pre; a variant may return a sparse form instead of a matrix."""
        return DenseCodes(self.activate(F.linear(centered, self.W_enc, self.b_enc)))

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> Codes:
        """Return the codes of a training batch, for variants that train with others than they encode with."""
        return self.codes(centered)

    def reconstruct(self, codes: Codes) -> Float[Tensor, "samples dim"]:
        """Return the reconstructions minus b_pre."""
        return codes.dense() @ self.W_dec

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs; the loss (Eq. 3) sums both modalities' squared errors, averaged over pairs.

        Raises:
            TypeError: a side is no tensor.
            ValueError: a side is no matrix of this dictionary's width, or they are not of the same pairs.
        """
        self.check_batch(image, text)
        # b_pre cancels in ẑ − z, so the error is computed on centered embeddings.
        centered = torch.cat([image - self.bias_of("image"), text - self.bias_of("text")])
        codes = self.training_codes(centered)
        error, residual = self.squared_error(centered, codes)
        penalty = codes.penalty / len(image) if isinstance(codes, DenseCodes) and codes.penalty is not None else None
        return AutoencoderOutput(error / len(image), centered.detach(), residual.detach(), codes, penalty)

    def check_batch(self, image: Tensor, text: Tensor) -> None:
        """Raise TypeError or ValueError unless two tensors are embeddings of the same pairs; see `forward`."""
        for side, name in ((image, "image"), (text, "text")):
            check_tensor(side, name)
        if image.ndim != 2 or image.shape != text.shape or image.shape[1] != self.dim:
            raise ValueError(
                f"image and text [pairs, {self.dim}] expected by this {self.architecture} dictionary, got "
                f"{tuple(image.shape)} and {tuple(text.shape)}"
            )

    def squared_error(
        self, centered: Float[Tensor, "samples dim"], codes: Codes
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
        """Return the sum of squared errors of a training batch, and the residuals c − ĉ."""
        residual = centered - self.reconstruct(codes)
        return residual.square().sum(), residual

    def dead_rows(self, silent: Bool[Tensor, "2 latents"]) -> Bool[Tensor, " rows"]:
        """Return which rows of the weights belong to dead latents: by default one for each latent.

        Args:
            silent: latents that have not fired for long on images (row 0) and on texts (row 1).
        """
        return silent.all(0)

    def auxiliary_loss(self, output: AutoencoderOutput, dead: Bool[Tensor, " rows"], auxk: int) -> Float[Tensor, ""]:
        """AuxK loss (Gao et al. 2024): reconstruct the residual from the `auxk` most active dead latents.

        The loss is the squared error, without b_pre and with a detached residual, divided by the residual's variance;
        0 if no latent is dead. If processes share a batch, the mean of their losses is the loss of the whole batch.

        Args:
            output: forward pass of the batch.
            dead: mask of rows of the weights, of `dead_rows`.
            auxk: dead latents per sample.
        """
        atoms = dead.nonzero().squeeze(1)
        residual = output.residual
        processes = place()[1]
        if len(atoms) == 0:
            return residual.new_zeros(())
        error = (residual - self.reconstruct_from(output.centered, atoms, auxk)).square().sum()
        mean = sum_over_processes(residual.mean(0)) / processes
        variance = sum_over_processes((residual - mean).square().sum())
        return (processes * error / variance).nan_to_num(0.0)

    def reconstruct_from(
        self, centered: Float[Tensor, "samples dim"], rows: Int64[Tensor, " rows"], count: int
    ) -> Float[Tensor, "samples dim"]:
        """Reconstruct samples minus b_pre from the `count` most active latents of some rows of the weights."""
        bias = None if self.b_enc is None else self.b_enc[rows]
        activation = F.linear(centered, self.W_enc[rows], bias)
        values, places = activation.topk(min(count, len(rows)), dim=1, sorted=False)
        return torch.zeros_like(activation).scatter(1, places, values.relu()) @ self.W_dec[rows]

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove from each atom's gradient the component along the atom, which would only change its norm."""
        if self.W_dec.grad is not None:
            for grad, atoms in zip(self.W_dec.grad.split(1024), self.W_dec.split(1024), strict=True):
                grad.addcmul_((grad * atoms).sum(1, keepdim=True), atoms, value=-1)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Normalize the atoms to unit norm, in place; frozen ones have it and keep their bits.

        An atom of zeros, as pruned latents of other libraries have (`start_from`), stays zero.
        """
        if self.shared.frozen == "decoder":
            return
        lengths = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_dec.div_(lengths.clamp_min(torch.finfo(lengths.dtype).tiny))


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless an argument is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}")
