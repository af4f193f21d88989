"""Exchange with SAELens: TopK SAEs in the folder layout its `SAE.load_from_disk` reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.sae import TopKSAE

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"


def export_to_saelens(sae: TopKSAE, folder: str | Path) -> None:
    """Write the SAE as SAELens' `topk` architecture.

    Raises:
        DictionaryError: b_pre differs between the modalities, for which that format has no place.
    """
    if sae.center == "per_modality":
        raise DictionaryError(
            "SAELens' format has one b_dec and this SAE one b_pre for each modality: train with sae.center=pooled"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    bias = torch.zeros(sae.num_features) if sae.b_enc is None else sae.b_enc
    weights = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": bias, "b_dec": sae.b_pre[0]}
    save_file({name: w.detach().cpu().float().contiguous() for name, w in weights.items()}, folder / WEIGHTS_FILE)
    config = {
        "architecture": "topk",
        "d_in": sae.dim,
        "d_sae": sae.num_features,
        "k": sae.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {},
    }
    write_text_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def import_from_saelens(folder: str | Path) -> TopKSAE:
    """Read a `topk` SAE that SAELens wrote.

    Raises:
        DictionaryError: there is none, or it does what `TopKSAE` does not.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        weights = load_file(folder / WEIGHTS_FILE)
    except OSError as error:
        raise DictionaryError(f"no SAE of SAELens in {folder}: {error}") from error
    expected = {
        "architecture": "topk",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
    }
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise DictionaryError(f"{folder}: {key}={config[key]!r} has no counterpart here, only {value!r} has")
    if not config.get("apply_b_dec_to_input", False) and bool(weights["b_dec"].any()):
        raise DictionaryError(f"{folder}: b_dec is not subtracted from the input there, b_pre of Eq. 2 is")
    sae = TopKSAE(config["d_in"], config["d_sae"], config["k"], encoder_bias=True)
    sae.load_state_dict(
        {
            "W_enc": weights["W_enc"].T,
            "W_dec": weights["W_dec"],
            "b_enc": weights["b_enc"],
            "b_pre": weights["b_dec"].unsqueeze(0),
        }
    )
    return sae.eval()
