"""Stable Diffusion 2 and Stable unCLIP of the real classes, built small with random weights, behind a small open_clip."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

WIDTH = 32  # of tokens and of the joint space, as ViT-H/14's are both 1024
PIXELS = 16
ARCHITECTURE = "mmmono-tiny-clip"


def tiny_encoder(folder: Path, name: str = ARCHITECTURE, seed: int = 0) -> Path:
    """Make a small architecture known to open_clip, and the checkpoint of a random one."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 2},
    }
    (folder / f"{name}.json").write_text(json.dumps(configuration))
    open_clip.add_model_config(folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(name, pretrained=None)
    path = folder / f"{name}.pt"
    torch.save(model.state_dict(), path)
    return path


def tiny_sd2(folder: Path, checkpoint: Path, width: int = WIDTH) -> Path:
    """A `StableDiffusionPipeline` whose text tower has the encoder's token embeddings."""
    torch.manual_seed(1)
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(checkpoint, width),
        tokenizer=_tokenizer(folder.parent / "tokenizer"),
        unet=_unet(width),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tiny_unclip(folder: Path, checkpoint: Path, width: int = WIDTH) -> Path:
    """A `StableUnCLIPImg2ImgPipeline` whose image tower has the encoder's projection."""
    torch.manual_seed(1)
    projection = torch.load(checkpoint, weights_only=True)["visual.proj"]
    image_encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=len(projection),
            projection_dim=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            intermediate_size=64,
        )
    )
    image_encoder.visual_projection.weight.data.copy_(projection.T)
    StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
        image_encoder=image_encoder,
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=width),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=_tokenizer(folder.parent / "tokenizer"),
        text_encoder=_text_encoder(checkpoint, width),
        unet=_unet(width, class_embed_type="projection", projection_class_embeddings_input_dim=2 * width),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        vae=_vae(),
    ).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Single letters, without merges."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, pad_token="!")


def _text_encoder(checkpoint: Path, width: int) -> CLIPTextModel:
    configuration = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        eos_token_id=54, bos_token_id=53, pad_token_id=0,
    )  # fmt: skip
    model = CLIPTextModel(configuration)
    embedding = torch.load(checkpoint, weights_only=True)["token_embedding.weight"]
    if embedding.shape[1] == width:
        model.get_input_embeddings().weight.data.copy_(embedding)
    return model


def _unet(width: int, **settings: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=PIXELS // 2, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=(2, 4),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, use_linear_projection=True, **settings,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=PIXELS,
    )  # fmt: skip
