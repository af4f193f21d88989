"""Outputs of two frozen towers before any head: what heads are fitted on, and all that they need at inference.

A tower is the expensive part of a model with locked towers (LiT; Zhai et al., 2022). Its outputs depend on images, captions
and the towers' published weights alone, so that one pass serves every fit of heads and every extraction of the same pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import open_clip
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from mmmono.core.artifacts import digest
from mmmono.vlm.demo_towers import (
    EFFICIENTNET,
    EFFICIENTNET_SHA256,
    MINILM_SHA256,
    efficientnet_state_dict,
    minilm_folder,
    minilm_state_dict,
)
from mmmono.vlm.folding import folded
from mmmono.vlm.loading import load_open_clip
from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder

NAME = "towers"
IMAGE_WIDTH = 1280  # of EfficientNet-Lite0's pooled output
TEXT_WIDTH = 384  # of MiniLM's mean over tokens
CONFIG = Path(__file__).parent / "configs" / "drawingclip.json"  # of the model whose towers these are


def towers_config() -> dict[str, Any]:
    """open_clip's configuration of the model without heads: towers, image size and tokenizer are the model's."""
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    config["embed_dim"] = TEXT_WIDTH  # a text tower of this width has no head
    config["vision_cfg"] |= {"timm_model_name": EFFICIENTNET, "timm_proj": "none"}
    config["text_cfg"] |= {"hf_proj_type": None}
    return config


def towers_recipe() -> dict[str, Any]:
    """Everything that determines the towers' outputs, besides the pairs. Loads nothing."""
    return {"config": towers_config(), "weights": [EFFICIENTNET_SHA256, MINILM_SHA256]}


def locked_towers() -> OpenCLIPEncoder:
    """Load the two pretrained towers without heads, on the CPU.

    Returns:
        An encoder whose images are `[batch, 1280]` and texts `[batch, 384]`: the inputs of `model.visual.head` and
        `model.text.proj` of a whole model, with the same bits for the same batch.

    Raises:
        ModelError: the demo extra is missing, or a tower's file has another digest.
    """
    _register()
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        encoder = load_open_clip(NAME, None, joint=False)
    load_pretrained_towers(encoder)
    encoder.model.visual.trunk = folded(encoder.model.visual.trunk)
    encoder.fingerprint = f"towers:{digest(towers_recipe(), 16)}"
    return encoder


def load_pretrained_towers(encoder: OpenCLIPEncoder) -> None:
    """Load the published weights of both towers into a model of this architecture; its heads stay as they are."""
    trunk = efficientnet_state_dict()
    encoder.model.visual.trunk.load_state_dict({key: trunk[key] for key in trunk if not key.startswith("classifier.")})
    encoder.model.text.transformer.load_state_dict(minilm_state_dict())


def outputs_of(
    towers: OpenCLIPEncoder, pairs: Iterable[tuple[Image, str]], batch_size: int = 32
) -> tuple[Float[Tensor, "pairs image_width"], Float[Tensor, "pairs text_width"]]:
    """Return both towers' outputs for images with captions that are at hand, in float32.

    Args:
        towers: of `locked_towers`.
        pairs: images of any size with their captions; iterated once.
        batch_size: pairs per forward pass.
    """
    images, texts = [torch.empty(0, IMAGE_WIDTH)], [torch.empty(0, TEXT_WIDTH)]
    with torch.no_grad():
        for batch in _batches(pairs, batch_size):
            images.append(towers.encode_image(torch.stack([towers.preprocess(image) for image, _ in batch])))
            texts.append(towers.encode_text(towers.tokenize([caption for _, caption in batch])))
    return torch.cat(images), torch.cat(texts)


def heads_of(encoder: OpenCLIPEncoder) -> dict[Literal["image", "text"], nn.Module]:
    """Return the heads of a whole model, from a tower's outputs `[batch, width]` to embeddings `[batch, dim]`."""
    return {"image": encoder.model.visual.head, "text": encoder.model.text.proj}


@cache
def _register() -> None:
    register(NAME, towers_config())


def register(name: str, config: dict[str, Any]) -> None:
    """Register an architecture with open_clip, with the text tower's folder on this machine."""
    config["text_cfg"] |= dict.fromkeys(("hf_model_name", "hf_tokenizer_name"), str(minilm_folder()))
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(folder)


def _batches(pairs: Iterable[tuple[Image, str]], size: int) -> Iterator[list[tuple[Image, str]]]:
    iterator = iter(pairs)
    while batch := list(islice(iterator, size)):
        yield batch
