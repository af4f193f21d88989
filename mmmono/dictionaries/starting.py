"""Start the training of a sparse autoencoder from one that is trained, by this project or another library."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.two_sided import TwoSidedSAE

OF_ITS_TRAINING = ("steps", "match")  # tensors of some kinds that are no weights
THRESHOLDS = "thresholds"  # of a JumpReLU SAE


@torch.no_grad()
def start_from(sae: SparseAutoencoder, other: Dictionary) -> None:
    """Give an autoencoder the weights and biases of another one, of any kind.

    What only its own kind has, such as the thresholds of JumpReLU, keeps its start unless the other one has it too. Atoms
    become unit vectors, and codes take on their lengths, so that the reconstruction from the same latents is the same.

    Args:
        sae: the autoencoder that will be trained; changed in place.
        other: the trained one.

    Raises:
        DictionaryError: the other one has other sizes, is no autoencoder, or needs what this one does not have, such as
            an encoder bias; the message names the setting.
    """
    if (other.dim, other.num_features) != (sae.dim, sae.num_features):
        raise DictionaryError(
            f"it has {other.num_features} latents for embeddings of width {other.dim}, not {sae.num_features} for "
            f"{sae.dim}: set expansion={other.num_features / other.dim:g}, and the model that it was trained on"
        )
    own = sae.state_dict()
    theirs = _rescaled(other) if isinstance(other, PretrainedSAE) else dict(other.state_dict())
    if not isinstance(other, SparseAutoencoder | PretrainedSAE) or "W_enc" not in theirs:
        raise DictionaryError("it has no encoder and decoder matrices, as a sparse autoencoder has")
    if isinstance(other, TwoSidedSAE) and not isinstance(sae, TwoSidedSAE):
        raise DictionaryError("it has weights for each modality: start features=sparc or features=matched_saes from it")
    if isinstance(sae, TwoSidedSAE) and not isinstance(other, TwoSidedSAE):  # both sides start as the one
        theirs |= {name: torch.cat([theirs[name]] * 2) for name in ("W_enc", "W_dec", "b_enc") if name in theirs}
    theirs = {name: value for name, value in theirs.items() if name not in OF_ITS_TRAINING}
    if "b_enc" not in own and bool(theirs.get("b_enc", torch.zeros(1)).any()):
        raise DictionaryError(
            "it has an encoder bias: set encoder_bias=true, with a + before it if there is no such option yet"
        )
    if sae.shared.encoder == "tied" and not torch.equal(theirs["W_enc"], theirs["W_dec"]):
        raise DictionaryError("its encoder is not its decoder: set encoder=transposed")
    theirs["b_pre"] = _centers(theirs["b_pre"], own["b_pre"])
    kept = {name: value for name, value in theirs.items() if name in own and value.shape == own[name].shape}
    sae.load_state_dict(own | kept)


def _centers(theirs: Tensor, own: Tensor) -> Tensor:
    """One b_pre for both modalities from that of each, or the other way round."""
    return theirs.mean(0, keepdim=True).expand_as(own) if len(theirs) != len(own) else theirs


def _rescaled(other: PretrainedSAE) -> dict[str, Tensor]:
    """Tensors of another library's autoencoder with unit atoms, under this project's names.

    Its pre-activations W_enc (z − shift) + b_enc are W_enc (z − b_pre) + b_enc + W_enc (b_pre − shift), and its b_pre is
    what its decoder adds.
    """
    encoding = other.encoding
    if encoding.input_norm != "none" or encoding.soft_cap:
        raise DictionaryError("it normalizes each embedding or caps its codes, as no autoencoder of this project does")
    if encoding.activation == "matching_pursuit":
        return {"W_enc": other.W_dec, "W_dec": other.W_dec, "b_pre": other.b_dec[None]}
    lengths = torch.linalg.vector_norm(other.W_dec, dim=1).clamp_min(torch.finfo(torch.float32).tiny)  # of dead latents
    found = {
        "W_enc": other.W_enc * lengths[:, None],
        "W_dec": other.W_dec / lengths[:, None],
        "b_enc": lengths * (other.b_enc + other.W_enc @ (other.b_dec - other.shift)),
        "b_pre": other.b_dec[None],
    }
    if encoding.activation == "threshold":
        found[THRESHOLDS] = (lengths * other.threshold).relu()
    if encoding.activation == "gated":
        moved = other.r_mag.exp() * (other.W_enc @ (other.b_dec - other.shift))
        found |= {"r_mag": other.r_mag, "b_mag": lengths * (other.b_mag + moved)}
    return found
