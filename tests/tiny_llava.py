"""A LLaVA of transformers' own classes, small and with random weights, saved as a hub's folder is."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

WORDS = (
    "<unk>", "<s>", "</s>", "<pad>", "<image>", "USER", ":", "ASSISTANT", "bake", "bread", "describe", "how", "to",
)  # fmt: skip
TOWER = CLIPVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
)


def tiny_llava(folder: Path, clip: Path | None = None, layer: int = -1) -> Path:
    """Write processor and weights to a folder.

    Args:
        folder: the folder.
        clip: of a CLIP of images of 32 pixels, whose vision tower it gets; None for a tower of its own.
        layer: layer that visual tokens are of.
    """
    torch.manual_seed(0)
    own = None if clip is None else CLIPModel.from_pretrained(clip)
    tower = TOWER if own is None else own.config.vision_config
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), fast,
        patch_size=tower.patch_size, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower,
        text_config=LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            vocab_size=len(WORDS), pad_token_id=3, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=4, vision_feature_layer=layer,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    if own is not None:
        model.model.vision_tower.load_state_dict(own.vision_model.state_dict())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
