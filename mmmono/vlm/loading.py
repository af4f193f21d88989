"""Any open_clip model, with a pretrained tag or a local checkpoint, as a `DualEncoder`."""

from __future__ import annotations

import difflib
import hashlib
import logging
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from mmmono.core.artifacts import file_fingerprint
from mmmono.core.errors import ModelError
from mmmono.vlm.dual_encoder import DualEncoder
from mmmono.vlm.hub import hub_or_cache


def load_open_clip(
    architecture: str,
    pretrained: str | None,
    name: str | None = None,
    force_quick_gelu: bool = False,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    cache_dir: str | None = None,
) -> DualEncoder:
    """Load a model through `open_clip.create_model_and_transforms`.

    Args:
        architecture: a name from `open_clip.list_models()`.
        pretrained: one of the architecture's tags, the path of a checkpoint, or None for random weights.
        name: what tables and figures call the model; the architecture's name if None.
        force_quick_gelu: use QuickGELU, as a checkpoint from OpenAI's training needs. A tag knows this by itself.
        precision: open_clip's `fp32`, `fp16`, `bf16`, `pure_fp16` or `pure_bf16`.
        device: where the model goes.
        cache_dir: where downloads go, if not to the hub's own cache.

    Raises:
        ModelError: unknown architecture or tag, a missing, unfitting or unsafe checkpoint, or no way to download it.
    """
    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        raise ModelError(
            f"model.architecture={architecture} is unknown to open_clip"
            f"{_did_you_mean(architecture, open_clip.list_models())}; open_clip.list_models() lists all"
        )
    tag = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else None
    if pretrained and not tag and not Path(pretrained).is_file():
        raise ModelError(_no_such_weights(architecture, pretrained))
    # open_clip only warns where a tag's weights want QuickGELU and the architecture's configuration does not say so.
    quick_gelu = bool(config.get("quick_gelu", False) or (tag or {}).get("quick_gelu", False))
    if tag and force_quick_gelu and not quick_gelu:
        raise ModelError(f"model.pretrained={pretrained} was trained with GELU: drop model.force_quick_gelu")
    quick_gelu = quick_gelu or force_quick_gelu

    with hub_or_cache() if tag or _wants_hub(config["text_cfg"]) else nullcontext():
        if tag:
            _download(architecture, pretrained, tag, cache_dir)
        try:
            with _quiet_open_clip():
                model, _, transform = open_clip.create_model_and_transforms(
                    architecture,
                    pretrained,
                    precision=precision,
                    device=device,
                    force_quick_gelu=quick_gelu,
                    pretrained_text=False,
                    cache_dir=cache_dir,
                )
            tokenizer = open_clip.get_tokenizer(architecture, cache_dir=cache_dir)
        except Exception as error:  # a checkpoint of something else trips open_clip's reading up anywhere
            raise ModelError(_why_not_loaded(architecture, pretrained, error)) from error
    return DualEncoder(
        model,
        transform,
        tokenizer,
        name=name or architecture,
        dim=config["embed_dim"],
        fingerprint=f"open_clip:{architecture}:{_weights_fingerprint(pretrained, bool(tag), model)}:{quick_gelu}",
        input_dtype=open_clip.get_input_dtype(precision) or torch.float32,
    )


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Without open_clip's warning on the root logger that weights asked to be random are random."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _download(architecture: str, pretrained: str | None, tag: dict[str, Any], cache_dir: str | None) -> None:
    try:
        open_clip.download_pretrained(tag, cache_dir=cache_dir)
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"cannot download {architecture} {pretrained} from {tag.get('hf_hub') or tag.get('url')}: fetch the "
            "checkpoint where there is a network and give its path, model.pretrained=/path/to/checkpoint"
            + (" model.force_quick_gelu=true" if tag.get("quick_gelu") else "")
        ) from error


def _wants_hub(text: dict[str, Any]) -> bool:
    names = (text.get("hf_model_name"), text.get("hf_tokenizer_name"))
    return any(name and not Path(name).is_dir() for name in names)


def _no_such_weights(architecture: str, pretrained: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if Path(pretrained).suffix or "/" in pretrained:
        return f"model.pretrained={pretrained} is no file: give the path of a checkpoint, or a tag ({', '.join(tags)})"
    return (
        f"model.pretrained={pretrained} is no tag of {architecture}{_did_you_mean(pretrained, tags)}: "
        f"it has {', '.join(tags) or 'none'}; a checkpoint's path is taken too"
    )


def _why_not_loaded(architecture: str, pretrained: str | None, error: Exception) -> str:
    message = str(error)
    if isinstance(error, pickle.UnpicklingError) or "TorchScript" in message:
        if "TorchScript" in message:
            convert = "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), new_path)"
        else:
            convert = "torch.save(torch.load(path, map_location='cpu', weights_only=False)['state_dict'], new_path)"
        return (
            f"model.pretrained={pretrained} is no checkpoint, or holds more than tensors, which is not unpickled here: "
            f"if you trust it, convert it once with {convert}"
        )
    reason = " ".join(message.split())
    return f"cannot load {architecture} from {pretrained}: {reason[:300]}"


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    by_lower = {known.lower(): known for known in names}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=4, cutoff=0.5)]
    return f" (closest: {', '.join(close)})" if close else ""


def _weights_fingerprint(pretrained: str | None, is_tag: bool, model: nn.Module) -> str:
    if pretrained is None:
        return weights_digest(model)
    return pretrained if is_tag else file_fingerprint(Path(pretrained))


def weights_digest(model: nn.Module) -> str:
    """Digest of all weights, for a model that comes from no file."""
    sha = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        sha.update(key.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
