"""Export and import TopK SAEs in the folder layout of SAELens' `SAE.load_from_disk`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.base import read_config, read_weights, unfitting
from mmmono.dictionaries.sae import TopKSAE

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"


def export_to_saelens(sae: TopKSAE, folder: str | Path) -> None:
    """Write the SAE to a folder as SAELens' `topk` architecture.

    Raises:
        DictionaryError: the SAE has one b_pre per modality, which the format cannot hold.
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
    """Read a TopK SAE that SAELens (version 3 or later) saved; its codes equal those of SAELens.

    `rescale_acts_by_decoder_norm` and a `b_dec` that is not subtracted from the input are folded into the weights.
    Decoder rows may have any norm; weights become float32.

    Raises:
        DictionaryError: the folder holds no SAE, a broken one, or one that `TopKSAE` cannot represent. The message
            names the file and the field.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise DictionaryError(f"no SAE of SAELens in {folder}: {' and '.join(missing)} not there")
    file = folder / CONFIG_FILE
    config = _as_version_6(read_config(file))
    _check_counterparts(config, file)
    d_in, d_sae, k = (_count(config, name, file) for name in ("d_in", "d_sae", "k"))
    if k > d_sae:
        raise DictionaryError(f"{file}: k={k} is more than its d_sae={d_sae} latents")
    weights = _float_weights(folder / WEIGHTS_FILE)
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    if wrong := unfitting(weights, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}):
        raise DictionaryError(
            f"{folder / WEIGHTS_FILE} does not fit d_in={d_in}, d_sae={d_sae} of {CONFIG_FILE}: {wrong}"
        )
    w_enc, w_dec, b_enc, b_dec = (weights[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
    if not config["apply_b_dec_to_input"]:  # W_enc z = W_enc (z - b_dec) + W_enc b_dec
        b_enc = b_enc + b_dec @ w_enc
    if config["rescale_acts_by_decoder_norm"]:
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        if not bool((norms > 0).all()):
            raise DictionaryError(f"{folder / WEIGHTS_FILE}: W_dec has rows of length zero, by which codes are divided")
        w_enc, b_enc, w_dec = w_enc * norms, b_enc * norms, w_dec / norms[:, None]
    sae = TopKSAE(d_in, d_sae, k, encoder_bias=True)
    sae.load_state_dict({"W_enc": w_enc.T, "W_dec": w_dec, "b_enc": b_enc, "b_pre": b_dec.unsqueeze(0)})
    return sae.eval()


def _as_version_6(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with SAELens 6 names and defaults, converted as SAELens converts older ones."""
    known = {"activation_fn" if name == "activation_fn_str" else name: value for name, value in config.items()}
    settings = known.get("activation_fn_kwargs")
    if known.get("activation_fn") == "topk" and isinstance(settings, dict) and settings.get("k") is not None:
        known |= {"architecture": "topk", "k": settings["k"]}
    hook = str(known.get("hook_name", known.get("hook_point", "")))
    defaults = {
        "architecture": "standard",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if "hook_z" in hook else "none",
        "rescale_acts_by_decoder_norm": False,
    }
    known = defaults | {name: value for name, value in known.items() if value is not None}
    if isinstance(known["normalize_activations"], bool):
        known["normalize_activations"] = "expected_average_only_in" if known["normalize_activations"] else "none"
    return known


def _check_counterparts(config: dict[str, Any], file: Path) -> None:
    """Raise DictionaryError for settings that `TopKSAE` cannot represent."""
    for name, value in {"architecture": "topk", "normalize_activations": "none", "reshape_activations": "none"}.items():
        if config[name] != value:
            raise DictionaryError(f"{file}: {name}={config[name]!r} has no counterpart here, only {value!r} has")
    for name in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        if not isinstance(config[name], bool):
            raise DictionaryError(f"{file}: {name}={config[name]!r} is neither true nor false")


def _count(config: dict[str, Any], name: str, file: Path) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        what = f"{name}={value!r} is no whole number of at least 1" if name in config else f"it has no {name}"
        raise DictionaryError(f"{file}: {what}")
    return value


def _float_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors as float32 without fine-tuning scale factors. Raises DictionaryError if a factor is not 1."""
    weights = {name: weight.float() for name, weight in read_weights(file).items()}
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not bool((weights.pop(name) == 1).all()):
            raise DictionaryError(
                f"{file}: {name} scales the codes, which has no counterpart here: fold it in with SAELens"
            )
    return weights
