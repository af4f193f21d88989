"""Read what the code of MSAE saves (Zaigrajew, Baniecki and Biecek 2025, arXiv 2502.20578): one `.pt` or `.pth` file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.foreign_files import Hints, count, read_torch_file, take, tensors_of
from mmmono.dictionaries.pretrained import PretrainedSAE

# <latents>_<width>_<activation>[_<k or weight of the L1 penalty>][_UW or _RW]_<tied>_<normalize>_<soft cap>[_<data>]
NAME = re.compile(
    r"(?P<latents>\d+)_(?P<width>\d+)_(?P<activation>[A-Za-z]+)(?:_(?P<number>\d+))?(?:_(?:UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<cap>[\d.]+?)(?:_.*)?\.pth?"
)


def is_msae(content: dict[str, Any]) -> bool:
    """Whether a file has the entries that MSAE's training saves."""
    return {"model", "mean_center", "scaling_factor"} <= set(content)


def read_msae(file: Path, hints: Hints) -> PretrainedSAE:
    """Read an autoencoder. How it encodes stands in its file's name alone, in the form that its training gives it.

    codes = activation((s (z − m) − pre_bias) encoder + latent_bias) with the mean m and scale s of its training data,
    which the file has. Reconstructions are brought back to the embeddings' scale.

    Raises:
        DictionaryError: the file is broken, its name was changed, or it cannot be read.
    """
    content = read_torch_file(file)
    name = NAME.fullmatch(file.name)
    if name is None:
        raise DictionaryError(
            f"{file.name} does not say how it encodes: MSAE's own names do, such as "
            "6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth"
        )
    if name["normalize"] == "True":
        raise DictionaryError(f"{file.name}: normalize=True scales each embedding by itself, which codes do not tell")
    weights = tensors_of(content["model"], file)
    encoding = _encoding(name, weights, file, hints)
    pre_bias, encoder, latent_bias = take(weights, file, "pre_bias", "encoder", "latent_bias")
    decoder = encoder.T if name["tied"] == "True" else take(weights, file, "decoder")[0]
    mean, scale = _number(content, "mean_center", file), _number(content, "scaling_factor", file)
    if scale.numel() != 1 or not scale.item() > 0:
        raise DictionaryError(f"{file}: scaling_factor={scale.tolist()} is no positive number")
    made = {
        "W_enc": scale * encoder.T.float(),
        "b_enc": latent_bias,
        "shift": (mean + pre_bias / scale).expand_as(pre_bias),
        "W_dec": decoder.float() / scale,
        "b_dec": (mean + pre_bias / scale).expand_as(pre_bias),
    }
    if encoding["activation"] == "threshold":
        made["threshold"] = take(weights, file, "activation.log_threshold")[0].exp()
    sae = PretrainedSAE.of(str(file), encoding, made)
    if (sae.num_features, sae.dim) != (int(name["latents"]), int(name["width"])):
        raise DictionaryError(f"{file.name}: its tensors have {sae.num_features} latents of width {sae.dim}")
    return sae


def _encoding(name: re.Match[str], weights: dict[str, Tensor], file: Path, hints: Hints) -> dict[str, Any]:
    kind, cap = name["activation"], {"soft_cap": float(name["cap"])}
    if kind == "TopKReLU":
        return {"activation": "topk", "k": hints.k or count(int(name["number"] or 0), "k", file), **cap}
    if kind == "ReLU":
        return {"activation": "relu", **cap}
    if kind == "JumpReLU":
        if "activation.log_threshold" not in weights:
            raise DictionaryError(f"{file}: activation.log_threshold is missing, without which JumpReLU cannot encode")
        return {"activation": "threshold", **cap}
    if kind.startswith("BatchTopK"):
        raise DictionaryError(
            f"{file.name}: {kind} selects within a batch and saves no threshold, so codes would depend on the batch"
        )
    raise DictionaryError(f"{file.name}: activation={kind} has no counterpart here, only TopKReLU, ReLU, JumpReLU have")


def _number(content: dict[str, Any], name: str, file: Path) -> Tensor:
    value = content[name]
    try:
        return torch.as_tensor(value, dtype=torch.float32).flatten()
    except (TypeError, ValueError) as error:
        raise DictionaryError(f"{file}: {name} is a {type(value).__name__}, not a number or numbers") from error
