"""DeCLIP's released checkpoints in open_clip's model.

Li et al., "Supervision Exists Everywhere: A Data Efficient Contrastive Language-Image Pre-training Paradigm", 2022;
checkpoints from github.com/Sense-GVT/DeCLIP.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.vlm.dual_encoder import DualEncoder

CONFIGS = Path(__file__).parent / "configs"
ARCHITECTURES = ("declip_rn50", "declip_vit_b32")

# DeCLIP normalizes with ImageNet's statistics, not with CLIP's.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Its vocabulary holds a <|mask|> before <|startoftext|>; without that row CLIP's own tokenizer fits.
MASK_TOKEN = 49406
DECLIP_VOCABULARY = 49409

# Heads of the self-supervised losses, and the ResNet's fallback for odd input sizes: no part of either encoder.
EXTRA_HEADS = (
    "projector",
    "predictor",
    "projector_d",
    "predictor_d",
    "projector_text",
    "predictor_text",
    "projector_nn_text",
    "predictor_nn_text",
    "text_label_predictor",
    "nn_replacer_img",
    "nn_replacer_text",
    "visual.fc",
)
_DROPPED = tuple(f"{head}." for head in EXTRA_HEADS)
_TEXT_PREFIX = "encode_text."


def convert_declip_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename DeCLIP's weights to open_clip's `CLIP`, without the heads its training alone needs.

    Args:
        state: what a checkpoint holds under `model`, with or without the prefix `module.`.

    Returns:
        Weights for an `open_clip.CLIP` with `quick_gelu` and `text_cfg.proj_bias`, and CLIP's vocabulary. A key that is
        neither known nor known to be superfluous is kept, so that a strict load reports it.
    """
    converted = {}
    for full_key, value in state.items():
        key = full_key.removeprefix("module.")
        if key.startswith(_DROPPED):
            continue
        key = key.removeprefix(_TEXT_PREFIX)
        if key == "token_embedding.weight" and len(value) == DECLIP_VOCABULARY:
            value = torch.cat([value[:MASK_TOKEN], value[MASK_TOKEN + 1 :]])
        elif key == "logit_scale":
            value = value.reshape(())
        converted[key] = value
    return converted


def load_declip(architecture: str, checkpoint: Path, device: str | torch.device = "cpu") -> DualEncoder:
    """Load a released DeCLIP checkpoint.

    Args:
        architecture: `declip_rn50` (joint width 1024) or `declip_vit_b32` (512 or 3072, as the checkpoint has it).
        checkpoint: the downloaded `.pth.tar`.
        device: where the model goes.

    Raises:
        ModelError: unknown architecture, no such file, or a checkpoint that does not fit the architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"DeCLIP architecture {architecture} is none of {', '.join(ARCHITECTURES)}")
    config = json.loads((CONFIGS / f"{architecture}.json").read_text())
    state = convert_declip_state_dict(_read(checkpoint))
    if "text_projection.bias" in state:
        config["embed_dim"] = len(state["text_projection.bias"])
    model = open_clip.CLIP(**config)
    _check_fit(state, model.state_dict(), f"{checkpoint} does not fit {architecture}")
    model.load_state_dict(state)
    return DualEncoder(
        model.to(device),
        open_clip.image_transform(config["vision_cfg"]["image_size"], is_train=False, mean=MEAN, std=STD),
        open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"]),
        name=architecture,
        dim=config["embed_dim"],
        fingerprint=f"declip:{architecture}:{file_fingerprint(checkpoint)}",
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"DeCLIP checkpoint {path} is no file: github.com/Sense-GVT/DeCLIP links to the released ones")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no checkpoint, or holds more than tensors, which is not unpickled here: if you trust it, "
            "convert it once with torch.save({'model': torch.load(path, weights_only=False)['model']}, new_path)"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no weights under 'model': is it a checkpoint of DeCLIP?")
    return state


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in state.keys() & wanted.keys()
        if state[key].shape != wanted[key].shape
    ]
    problems = [
        *_listed("missing", wanted.keys() - state.keys()),
        *_listed("unknown", state.keys() - wanted.keys()),
        *_listed("of another shape", shapes),
    ]
    if problems:
        raise ModelError(f"{what}: {'; '.join(problems)}")


def _listed(kind: str, keys: Iterable[str], most: int = 12) -> list[str]:
    ordered = sorted(keys)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return [f"{kind}: {', '.join(ordered[:most])}{more}"] if ordered else []
