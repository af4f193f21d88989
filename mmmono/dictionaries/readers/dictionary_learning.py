"""Read what the library dictionary_learning saves: `ae.pt` and `config.json`; sae-for-vlm uses a copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.base import read_config
from mmmono.dictionaries.foreign_files import Hints, count, read_torch_file, take, tensors_of
from mmmono.dictionaries.pretrained import PretrainedSAE

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "ae.pt"
KINDS = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)


def read_dictionary_learning(file: Path, hints: Hints) -> PretrainedSAE:
    """Read the tensors of an `ae.pt`, or of a checkpoint such as `checkpoints/ae_100000.pt`.

    What wrote it is `trainer.dict_class` in the `config.json` beside it, or beside the folder of checkpoints. Without
    that, the names of the tensors tell, except that TopK and BatchTopK have the same: then `hints.kind` has to.
    `AutoEncoder` is scaled to atoms of unit norm, as the library does on loading; the others' codes are as saved.

    Raises:
        DictionaryError: the file is broken, holds more than tensors, or is of a kind that cannot be read.
    """
    weights = tensors_of(read_torch_file(file), file)
    trainer = trainer_of(file)
    kind = hints.kind or trainer.get("dict_class") or _told_by(weights, file)
    if kind not in KINDS:
        raise DictionaryError(f"{file}: dict_class={kind!r} is none of {', '.join(KINDS)}")
    encoding, weights = _read(str(kind), weights, file)
    if encoding["activation"] == "topk":
        stored = weights.pop("k", trainer.get("k"))
        encoding["k"] = hints.k or count(stored, "k", file)
    return PretrainedSAE.of(str(file), encoding, weights)


def trainer_of(file: Path) -> dict[str, Any]:
    """Settings of the trainer that made a file; empty if no configuration is beside it, or above its folder."""
    for folder in (file.parent, file.parent.parent):
        if (folder / CONFIG_FILE).is_file():
            trainer = read_config(folder / CONFIG_FILE).get("trainer", {})
            return trainer if isinstance(trainer, dict) else {}
    return {}


def _told_by(weights: dict[str, Tensor], file: Path) -> str:
    """The class whose tensors have these names."""
    for kind, name in {
        "MatryoshkaBatchTopKSAE": "group_sizes",
        "JumpReluAutoEncoder": "W_enc",
        "GatedAutoEncoder": "r_mag",
        "AutoEncoder": "bias",
        "AutoEncoderNew": "decoder.bias",
    }.items():
        if name in weights:
            return kind
    raise DictionaryError(
        f"{file}: no {CONFIG_FILE} beside it says its dict_class, and its tensors do not tell: give dictionary.kind, "
        "AutoEncoderTopK or BatchTopKSAE"
    )


def _read(kind: str, weights: dict[str, Tensor], file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Encoding and tensors, in the names of `PretrainedSAE`, of a kind."""
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        w_enc, w_dec, b_enc, b_dec, threshold = take(weights, file, "W_enc", "W_dec", "b_enc", "b_dec", "threshold")
        made = {"W_enc": w_enc.T, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}
        if kind == "JumpReluAutoEncoder":
            return {"activation": "threshold"}, {**made, "shift": torch.zeros_like(b_dec), "threshold": threshold}
        return _batch_topk({**made, "shift": b_dec}, threshold, file)
    w_enc, w_dec = take(weights, file, "encoder.weight", "decoder.weight")
    made = {"W_enc": w_enc, "W_dec": w_dec.T}
    if kind == "GatedAutoEncoder":
        names = ("decoder_bias", "gate_bias", "mag_bias", "r_mag")
        b_dec, made["b_enc"], made["b_mag"], made["r_mag"] = take(weights, file, *names)
        return {"activation": "gated"}, {**made, "shift": b_dec, "b_dec": b_dec}
    (b_enc,) = take(weights, file, "encoder.bias")
    if kind == "AutoEncoderNew":
        (b_dec,) = take(weights, file, "decoder.bias")
        return {"activation": "relu"}, {**made, "b_enc": b_enc, "b_dec": b_dec, "shift": torch.zeros_like(b_dec)}
    if kind == "AutoEncoder":
        (bias,) = take(weights, file, "bias")
        norms = torch.linalg.vector_norm(w_dec.float(), dim=0)
        scaled = {"W_enc": w_enc * norms[:, None], "W_dec": w_dec.T / norms[:, None], "b_enc": b_enc * norms}
        return {"activation": "relu"}, {**scaled, "shift": bias, "b_dec": bias}
    (b_dec,) = take(weights, file, "b_dec")
    made |= {"b_enc": b_enc, "b_dec": b_dec, "shift": b_dec}
    if kind == "BatchTopKSAE":
        (threshold,) = take(weights, file, "threshold")
        return _batch_topk(made, threshold, file)
    return {"activation": "topk"}, made | ({"k": weights["k"]} if "k" in weights else {})


def _batch_topk(made: dict[str, Tensor], threshold: Tensor, file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if threshold.numel() != 1 or not threshold.item() >= 0:
        raise DictionaryError(
            f"{file}: threshold={threshold.flatten()[:3].tolist()} is none: BatchTopK needs the threshold that its "
            "training estimates, in its first thousand steps it has none"
        )
    return {"activation": "threshold"}, {**made, "threshold": threshold.float().expand(len(made["W_dec"])).clone()}
