"""Export and import sparse autoencoders in the folder layout of SAELens' `SAE.load_from_disk`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import read_config, read_weights
from mmmono.dictionaries.batch_topk import BatchTopKSAE
from mmmono.dictionaries.foreign_files import check_floating, count, flag, refuse, take
from mmmono.dictionaries.gated import GatedSAE
from mmmono.dictionaries.jumprelu import JumpReLUSAE
from mmmono.dictionaries.l1_sae import L1SAE
from mmmono.dictionaries.matching_pursuit import MatchingPursuitSAE
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.sae import TopKSAE
from mmmono.dictionaries.two_sided import TwoSidedSAE

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"  # of a checkpoint before the end of a training: the factor of its inputs

# Architectures of SAELens that can be read, with what makes codes in them.
ACTIVATIONS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "threshold",
    "batchtopk": "threshold",
    "matryoshka_batchtopk": "threshold",
    "gated": "gated",
    "matching_pursuit": "matching_pursuit",
}


def export_to_saelens(sae: SparseAutoencoder, folder: str | Path, model: str | None = None) -> None:
    """Write the SAE to a folder in SAELens' architecture for it.

    These are `topk`, `standard` (L1), `gated`, `matching_pursuit` and `jumprelu`: BatchTopK, also of a Matryoshka SAE,
    becomes JumpReLU with the same threshold for all latents, as SAELens saves its own.

    Args:
        sae: the autoencoder.
        folder: gets `cfg.json` and `sae_weights.safetensors`.
        model: name of the model whose embeddings it was trained on, for its metadata.

    Raises:
        DictionaryError: the SAE has one b_pre per modality, which the format cannot hold, or has no counterpart.
    """
    if not isinstance(sae, SparseAutoencoder):
        kind = getattr(sae, "architecture", type(sae).__name__)
        raise DictionaryError(
            f"SAELens has no architecture for a {kind} dictionary: it takes sparse autoencoders trained here"
        )
    if isinstance(sae, TwoSidedSAE):
        raise DictionaryError(f"SAELens has no architecture for a {sae.architecture}: it has weights for each modality")
    if sae.center == "per_modality":
        raise DictionaryError(
            "SAELens' format has one b_dec and this SAE one b_pre for each modality: train with sae.center=pooled"
        )
    own, settings = _own(sae)
    bias = torch.zeros(sae.num_features) if sae.b_enc is None else sae.b_enc
    weights = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": bias, "b_dec": sae.b_pre[0]} | own
    for name in {"gated": ["b_enc"], "matching_pursuit": ["W_enc", "b_enc"]}.get(settings["architecture"], []):
        del weights[name]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: w.detach().cpu().float().clone().contiguous() for name, w in weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {
        **settings,
        "d_in": sae.dim,
        "d_sae": sae.num_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {},
        **({} if model is None else {"model_name": model}),  # where SAELens looks if no version of its own is named
    }
    write_text_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def _own(sae: SparseAutoencoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings that only an architecture of SAELens has."""
    if isinstance(sae, BatchTopKSAE) and sae.threshold is not None:
        return {"threshold": sae.threshold.expand(sae.num_features)}, {"architecture": "jumprelu"}
    if isinstance(sae, JumpReLUSAE):
        return {"threshold": sae.thresholds}, {"architecture": "jumprelu"}
    if isinstance(sae, TopKSAE | BatchTopKSAE):
        return {}, {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(sae, L1SAE):
        return {}, {"architecture": "standard"}
    if isinstance(sae, GatedSAE):
        assert sae.b_enc is not None
        return {"b_gate": sae.b_enc, "b_mag": sae.b_mag, "r_mag": sae.r_mag}, {"architecture": "gated"}
    if isinstance(sae, MatchingPursuitSAE):
        settings = {"residual_threshold": 0.0, "max_iterations": sae.k, "stop_on_duplicate_support": False}
        return {}, {"architecture": "matching_pursuit", **settings}
    raise DictionaryError(f"SAELens has no architecture for a {sae.architecture}: keep it in this project's format")


def import_from_saelens(folder: str | Path, k: int | None = None, input_scale: float | None = None) -> PretrainedSAE:
    """Read an SAE that SAELens (version 3 or later) saved; its codes equal those of SAELens.

    Decoder rows may have any norm; weights become float32.

    Args:
        folder: has `cfg.json` and `sae_weights.safetensors`.
        k: replaces the file's number of active latents.
        input_scale: factor of the activations in training, for `normalize_activations=expected_average_only_in`; replaces
            that of an `activation_scaler.json` in the folder.

    Raises:
        DictionaryError: the folder holds no SAE, a broken one, or one that cannot be encoded with. The message names the
            field.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise DictionaryError(f"no SAE of SAELens in {folder}: {' and '.join(missing)} not there")
    file = folder / CONFIG_FILE
    config = _as_version_6(read_config(file))
    _check_counterparts(config, file)
    d_in, d_sae = (count(config.get(name), name, file) for name in ("d_in", "d_sae"))
    weights = _float_weights(folder / WEIGHTS_FILE)
    for name, shape in {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}.items():
        if name in weights and weights[name].shape != shape:
            raise DictionaryError(
                f"{folder / WEIGHTS_FILE} does not fit d_in={d_in}, d_sae={d_sae} of {CONFIG_FILE}: "
                f"{name} is {tuple(weights[name].shape)}, not {shape}"
            )
    encoding = {**_encoding(config, file, d_in), **({"k": k} if k is not None else {})}
    scale = _input_scale(config, file, input_scale)
    _fold(config, weights, scale)
    if "smallest_residual" in encoding:
        encoding["smallest_residual"] /= scale
    return PretrainedSAE.of(str(folder), encoding, _made(config, weights, folder / WEIGHTS_FILE))


def _encoding(config: dict[str, Any], file: Path, d_in: int) -> dict[str, Any]:
    """Fields of `Encoding` that a configuration says."""
    norms = {"constant_norm_rescale": "constant", "layer_norm": "layer_norm"}
    encoding: dict[str, Any] = {
        "activation": ACTIVATIONS[config["architecture"]],
        "input_norm": norms.get(config["normalize_activations"], "none"),
    }
    if encoding["activation"] == "topk":
        encoding["k"] = count(config.get("k"), "k", file)
        if encoding["k"] > config["d_sae"]:
            raise DictionaryError(f"{file}: k={encoding['k']} is more than its d_sae={config['d_sae']} latents")
    if encoding["activation"] == "matching_pursuit":
        steps = config.get("max_iterations")
        encoding["k"] = d_in if steps is None else count(steps, "max_iterations", file)
        smallest = config.get("residual_threshold", 1e-2)
        if isinstance(smallest, bool) or not isinstance(smallest, int | float):
            raise DictionaryError(f"{file}: residual_threshold={smallest!r} is no number")
        encoding["smallest_residual"] = float(smallest)
        stops = config.get("stop_on_duplicate_support", True)
        encoding["stop_without_change"] = flag(stops, "stop_on_duplicate_support", file)
    return encoding


def _made(config: dict[str, Any], weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Tensors in the names of `PretrainedSAE`."""
    architecture = config["architecture"]
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        (threshold,) = take(weights, file, "topk_threshold")
        if not threshold.item() > 0:
            raise DictionaryError(f"{file}: topk_threshold={threshold.item():g} is none: BatchTopK was not trained")
        weights["threshold"] = threshold.float().expand(config["d_sae"]).clone()
    w_dec, b_dec = take(weights, file, "W_dec", "b_dec")
    at_input = b_dec if config["apply_b_dec_to_input"] else torch.zeros_like(b_dec)
    made = {"W_dec": w_dec, "b_dec": b_dec, "shift": at_input}
    if architecture == "matching_pursuit":
        return {**made, "b_dec": at_input, **weights}
    (w_enc,) = take(weights, file, "W_enc")
    if architecture == "gated":
        b_gate, made["b_mag"], made["r_mag"] = take(weights, file, "b_gate", "b_mag", "r_mag")
        made |= {"W_enc": w_enc.T, "b_enc": b_gate}
    else:
        (b_enc,) = take(weights, file, "b_enc")
        made |= {"W_enc": w_enc.T, "b_enc": b_enc}
    if ACTIVATIONS[architecture] == "threshold":
        (made["threshold"],) = take(weights, file, "threshold")
    if config["rescale_acts_by_decoder_norm"]:
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        if not bool((norms > 0).all()):
            raise DictionaryError(f"{file}: W_dec has rows of length zero, by which codes are divided")
        made["W_enc"], made["b_enc"] = made["W_enc"] * norms[:, None], made["b_enc"] * norms
        made["W_dec"] = w_dec / norms[:, None]
    return {**made, **weights}  # what is left over is refused as unknown


def _fold(config: dict[str, Any], weights: dict[str, Tensor], scale: float) -> None:
    """Make weights that take scale · z and return scale · ẑ take z, as `fold_activation_norm_scaling_factor` does.

    Where codes are multiplied by the decoder's lengths, these take up the factor, and so does a threshold of such codes.
    A pursuit has codes of the scale of what it pursues, and keeps its atoms.
    """
    weights |= {"W_enc": weights["W_enc"] * scale} if "W_enc" in weights else {}
    rescaled = ["topk_threshold"] if config["rescale_acts_by_decoder_norm"] else []
    decoder = [] if config["architecture"] == "matching_pursuit" else ["W_dec"]
    weights |= {name: weights[name] / scale for name in ["b_dec", *decoder, *rescaled] if name in weights}


def _input_scale(config: dict[str, Any], file: Path, given: float | None) -> float:
    """Factor of the inputs, which SAELens folds into the weights, keeps beside a checkpoint, or elsewhere."""
    if given is not None and not given > 0:
        raise DictionaryError(f"dictionary.input_scale={given} must be above 0")
    if given is not None or config["normalize_activations"] != "expected_average_only_in":
        return 1.0 if given is None else given
    beside = file.with_name(SCALER_FILE)
    kept = read_config(beside).get("scaling_factor") if beside.is_file() else None
    if kept is None:
        raise DictionaryError(
            f"{file}: normalize_activations='expected_average_only_in' scales the inputs by a number that is not in the "
            "file: give dictionary.input_scale, √d over the mean length of the activations it was trained on"
        )
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not 0 < kept < math.inf:
        raise DictionaryError(f"{beside}: scaling_factor={kept!r} is no number above 0")
    return float(kept)


def _as_version_6(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with SAELens 6 names and defaults, converted as SAELens converts older ones."""
    known = {"activation_fn" if name == "activation_fn_str" else name: value for name, value in config.items()}
    settings = known.get("activation_fn_kwargs")
    if known.get("activation_fn") == "topk" and isinstance(settings, dict) and settings.get("k") is not None:
        known |= {"architecture": "topk", "k": settings["k"]}
    hook = str(known.get("hook_name", known.get("hook_point", "")))
    defaults = {
        "architecture": "standard",
        "activation_fn": "relu",
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
    """Raise DictionaryError for settings that cannot be honored."""
    norms = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")
    refuse(
        config,
        file,
        architecture=tuple(ACTIVATIONS),
        normalize_activations=norms,
        reshape_activations=("none",),
        activation_fn=("relu", "topk"),
    )
    for name in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        flag(config[name], name, file)


def _float_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors as float32 without fine-tuning scale factors.

    Raises DictionaryError if a factor is not 1, or a tensor holds no floating-point numbers.
    """
    weights = {name: check_floating(name, weight, file).float() for name, weight in read_weights(file).items()}
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not bool((weights.pop(name) == 1).all()):
            raise DictionaryError(
                f"{file}: {name} scales the codes, which has no counterpart here: fold it in with SAELens"
            )
    return weights
