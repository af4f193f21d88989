"""Read the `state_dict()` of a sparse autoencoder of the library overcomplete, saved with torch.save or safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.foreign_files import Hints, count, take
from mmmono.dictionaries.pretrained import PretrainedSAE

ATOMS = "dictionary._weights"
ARCHETYPAL = "dictionary.Relax"
LINEAR = "encoder.final_block.0."
TIED = "encoder.tied_to."
ONE_STEP = 0.1  # by how much a step of training changes an atom's length at most, far above what it does


def is_overcomplete(content: Mapping[str, Any]) -> bool:
    """Whether a file has the atoms of one of its dictionaries, also of an archetypal one."""
    return any(name.startswith("dictionary.") for name in content)


def read_overcomplete(weights: dict[str, Tensor], file: Path, hints: Hints) -> PretrainedSAE:
    """Read an SAE, TopKSAE, JumpSAE or MpSAE with a linear encoder, or an RATopKSAE or RAJumpSAE.

    The file has neither the class nor its k: `hints.kind` and `hints.k` have to say them, but for a JumpSAE, which its
    thresholds give away.

    Args:
        weights: the file's tensors.
        file: where they come from.
        hints: class and k.

    Raises:
        DictionaryError: class or k is needed and not given, or the encoder is of another form.
    """
    kind = hints.kind or ("JumpSAE" if "thresholds" in weights else None)
    known = ("SAE", "TopKSAE", "JumpSAE", "MpSAE", "RATopKSAE", "RAJumpSAE")
    if kind == "BatchTopKSAE":
        raise DictionaryError(
            f"{file}: a BatchTopKSAE's running_threshold is not in its state_dict(), so nobody can encode: where it was "
            "trained, save the state_dict() with the logarithm of it, once for each latent, as thresholds: a JumpSAE's"
        )
    if kind not in known:
        told = "its state_dict() does not say its class" if kind is None else f"dictionary.kind={kind} is none of them"
        raise DictionaryError(f"{file}: {told}: give dictionary.kind, one of {', '.join(known)}")
    (multiplier,) = take(weights, file, "dictionary.multiplier")
    atoms = _archetypal(weights, file) if ARCHETYPAL in weights else _normalized(*take(weights, file, ATOMS))
    decoder = atoms * multiplier.exp()
    zeros = torch.zeros(atoms.shape[1])
    made = {"W_dec": decoder, "shift": zeros, "b_dec": zeros}
    needs_k = kind in ("TopKSAE", "MpSAE", "RATopKSAE")
    if needs_k and hints.k is None:
        raise DictionaryError(
            f"{file}: a {kind}'s number of active latents is not in its state_dict(): give dictionary.k"
        )
    k = count(hints.k, "dictionary.k", file) if needs_k else None
    if kind == "MpSAE":
        return PretrainedSAE.of(str(file), {"activation": "matching_pursuit", "k": k}, made)
    made |= _encoder(weights, decoder, file)
    activations = {"SAE": "relu", "TopKSAE": "topk", "JumpSAE": "threshold"}
    encoding: dict[str, Any] = {"activation": activations[kind.removeprefix("RA")], "k": k}
    if encoding["activation"] == "threshold":
        made["threshold"] = take(weights, file, "thresholds")[0].exp()
    if weights:
        raise DictionaryError(
            f"{file}: {', '.join(list(weights)[:4])} have no counterpart here: its encoder is not linear"
        )
    return PretrainedSAE.of(str(file), encoding, made)


def _archetypal(weights: dict[str, Tensor], file: Path) -> Tensor:
    """Atoms of a relaxed archetypal dictionary: a convex combination of points for each, and what is added to it.

    The library bounds the length of what is added when it trains, by a number that is not in the file.
    """
    mixture, added, points = take(weights, file, "dictionary.W", ARCHETYPAL, "dictionary.C")
    shares = mixture.float().relu()
    return shares / (shares.sum(1, keepdim=True) + 1e-8) @ points.float() + added.float()


def _normalized(atoms: Tensor) -> Tensor:
    """Atoms of unit length, as the library makes them before each use, but not after the last step of a training.

    The file does not say which normalization it has: atoms that are of another length keep it.
    """
    lengths = torch.linalg.vector_norm(atoms.float(), dim=1, keepdim=True)
    return atoms / lengths if bool(((lengths - 1).abs() < ONE_STEP).all()) else atoms


def _encoder(weights: dict[str, Tensor], decoder: Tensor, file: Path) -> dict[str, Tensor]:
    """Weights of a linear encoder: its own, those of an untied or a tied one."""
    zeros = torch.zeros(len(decoder))
    if f"{LINEAR}weight" in weights:
        weight, bias = take(weights, file, f"{LINEAR}weight", f"{LINEAR}bias")
        return {"W_enc": weight, "b_enc": bias}
    for name in [name for name in weights if name.startswith(TIED)]:  # the dictionary once more
        del weights[name]
    return {"W_enc": weights.pop("encoder.weight", decoder), "b_enc": weights.pop("encoder.bias", zeros)}
