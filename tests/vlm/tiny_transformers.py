"""Tiny models of transformers with random weights and their processors, written by transformers itself."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
IMAGE = {"image_size": 32, "patch_size": 8}
TEXT = {"vocab_size": 64, "max_position_embeddings": 20}
WORDS = ("a", "photo", "of", "cat", "dog", "two", "red", "blue", "green", "small", "big", "the", "on", "grass")


def write_tiny(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a model of a type (`clip`, `siglip`, `siglip2`, `aimv2`, `align`) and its processor to a folder."""
    torch.manual_seed(seed)
    model = _model(kind)
    for weight in model.parameters():  # what starts at zero or one gets weights of its own
        weight.data.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    _processor(kind).save_pretrained(folder)
    return folder


def _model(kind: str) -> Any:
    t: Any = transformers
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "clip":
        config = t.CLIPConfig(
            text_config={**TOWER, **TEXT, **ids, "eos_token_id": 3, "projection_dim": 24},
            vision_config={**TOWER, **IMAGE, "hidden_size": 48, "projection_dim": 24},
            projection_dim=24,
        )
        return t.CLIPModel(config)
    if kind == "siglip":
        return t.SiglipModel(t.SiglipConfig(text_config={**TOWER, **TEXT, **ids}, vision_config={**TOWER, **IMAGE}))
    if kind == "siglip2":
        vision = {**TOWER, "patch_size": 8, "num_patches": 16}
        return t.Siglip2Model(t.Siglip2Config(text_config={**TOWER, **TEXT, **ids}, vision_config=vision))
    if kind == "aimv2":
        config = t.Aimv2Config(
            text_config={**TOWER, **TEXT, "eos_token_id": 3},
            vision_config={**TOWER, **IMAGE, "is_native": False},
            projection_dim=24,
        )
        return t.Aimv2Model(config)
    vision = {"image_size": 40, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 32}
    text = {**TOWER, **TEXT, "pad_token_id": 0}
    return t.AlignModel(t.AlignConfig(text_config=text, vision_config=vision, projection_dim=32))


def _processor(kind: str) -> Any:
    t: Any = transformers
    tokenizer = tiny_tokenizer(masks=kind != "siglip")
    if kind == "siglip":
        return t.SiglipProcessor(t.SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    if kind == "siglip2":
        return t.Siglip2Processor(t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16), tokenizer)
    if kind == "align":
        images = t.EfficientNetImageProcessor(
            size={"height": 48, "width": 48}, crop_size={"height": 40, "width": 40}, do_center_crop=True,
            rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False,
        )  # fmt: skip
        return t.AlignProcessor(images, tokenizer)
    images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return t.CLIPProcessor(images, tokenizer)


def tiny_tokenizer(masks: bool) -> Any:
    """A tokenizer of some words and all letters, whose captions end in </s>, number 3; with or without a mask."""
    words = dict.fromkeys(("<pad>", "<s>", "<unk>", "</s>", *WORDS, *string.ascii_lowercase))
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_max_length=20,
        model_input_names=["input_ids", "attention_mask"] if masks else ["input_ids"],
    )
