"""Loads DeCLIP's released checkpoints into open_clip's model.

Li et al., "Supervision Exists Everywhere: A Data Efficient Contrastive Language-Image Pre-training Paradigm", 2022;
checkpoints from github.com/Sense-GVT/DeCLIP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.vlm.checkpoints import drop_inserted, misfit, not_finite, read_state_dict
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder

CONFIGS = Path(__file__).parent / "configs"
ARCHITECTURES = ("declip_rn50", "declip_vit_b32")

# DeCLIP normalizes images with ImageNet's statistics, not CLIP's.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# DeCLIP's vocabulary has a <|mask|> before <|startoftext|>; without that row it equals that of CLIP's tokenizer.
MASK_TOKEN = 49406
DECLIP_VOCABULARY = 49409

# Heads of the self-supervised losses, and the ResNet's fallback for odd input sizes: not part of the encoders.
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
    """Rename DeCLIP's weights to those of open_clip's `CLIP`, and drop the heads used only in training.

    Args:
        state: the mapping under `model` in a checkpoint, with or without the prefix `module.`.

    Returns:
        Weights for an `open_clip.CLIP` with `quick_gelu`, `text_cfg.proj_bias` and CLIP's vocabulary. Unknown keys are
        kept, so that a strict load reports them.
    """
    converted = {}
    for full_key, value in state.items():
        key = drop_inserted(full_key)
        if key.startswith(_DROPPED):
            continue
        key = key.removeprefix(_TEXT_PREFIX)
        if key == "token_embedding.weight" and len(value) == DECLIP_VOCABULARY:
            value = torch.cat([value[:MASK_TOKEN], value[MASK_TOKEN + 1 :]])
        elif key == "logit_scale":
            value = value.reshape(())
        converted[key] = value
    return converted


def load_declip(architecture: str, checkpoint: Path, device: str | torch.device = "cpu") -> OpenCLIPEncoder:
    """Load a released DeCLIP checkpoint.

    Args:
        architecture: `declip_rn50` (embedding width 1024) or `declip_vit_b32` (512 or 3072, depending on the
            checkpoint).
        checkpoint: the downloaded `.pth.tar`.
        device: of the model.

    Raises:
        ModelError: unknown architecture, missing file, or a checkpoint that does not fit the architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"DeCLIP architecture {architecture} is none of {', '.join(ARCHITECTURES)}")
    config = json.loads((CONFIGS / f"{architecture}.json").read_text(encoding="utf-8"))
    state = convert_declip_state_dict(_read(checkpoint))
    if "text_projection.bias" in state:
        config["embed_dim"] = len(state["text_projection.bias"])
    model = open_clip.CLIP(**config)
    if problem := misfit(state, model.state_dict(), most=12):
        raise ModelError(f"{checkpoint} does not fit {architecture}: {problem}")
    if name := not_finite(state):
        raise ModelError(f"{checkpoint}: {name} holds NaN or infinite numbers: it is broken")
    model.load_state_dict(state)
    return OpenCLIPEncoder(
        model.to(device),
        open_clip.image_transform(config["vision_cfg"]["image_size"], is_train=False, mean=MEAN, std=STD),
        open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"]),
        name=architecture,
        dim=config["embed_dim"],
        fingerprint=f"declip:{architecture}:{file_fingerprint(checkpoint)}",
    )


def declip_dim(checkpoint: Path) -> int:
    """Return the embedding width of a checkpoint, from its shapes only. Raises ModelError if it is not a checkpoint."""
    state = convert_declip_state_dict(_read(checkpoint, "meta"))
    if "text_projection.bias" not in state:
        raise ModelError(f"{checkpoint} has no text_projection.bias: is it a checkpoint of DeCLIP?")
    return len(state["text_projection.bias"])


def _read(path: Path, device: str = "cpu") -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"DeCLIP checkpoint {path} is no file: github.com/Sense-GVT/DeCLIP links to the released ones")
    return read_state_dict(path, str(path), device)
