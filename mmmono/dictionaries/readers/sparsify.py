"""Read what EleutherAI's sparsify (on the package index eai-sparsify) saves: `cfg.json` and `sae.safetensors`."""

from __future__ import annotations

from pathlib import Path

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.base import read_config, read_weights
from mmmono.dictionaries.foreign_files import Hints, count, refuse, take
from mmmono.dictionaries.pretrained import PretrainedSAE

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae.safetensors"


def read_sparsify(folder: Path, hints: Hints) -> PretrainedSAE:
    """Read a sparse coder: TopK or GroupMax of ReLU(W_enc (z − b_dec) + b_enc).

    Raises:
        DictionaryError: files are broken, or it is a transcoder, has a skip connection or signed codes.
    """
    file, weights = folder / CONFIG_FILE, read_weights(folder / WEIGHTS_FILE)
    config = read_config(file)
    refuse(config, file, activation=("topk", "groupmax"), transcode=(False,), skip_connection=(False,), signed=(False,))
    origin = folder / WEIGHTS_FILE
    w_enc, b_enc, w_dec, b_dec = take(weights, origin, "encoder.weight", "encoder.bias", "W_dec", "b_dec")
    if weights:
        raise DictionaryError(f"{origin}: {', '.join(weights)} have no counterpart here")
    encoding = {"activation": config.get("activation", "topk"), "k": hints.k or count(config.get("k"), "k", file)}
    made = {"W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": b_dec, "shift": b_dec}
    return PretrainedSAE.of(str(folder), encoding, made)
