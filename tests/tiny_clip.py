"""A small real CLIP."""

import open_clip
import torch

from mmmono.vlm import OpenCLIPEncoder


def tiny_clip() -> OpenCLIPEncoder:
    """A CLIP of open_clip with random weights: images of 32 pixels, 24 dimensions."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=24,
        vision_cfg={"layers": 2, "width": 64, "patch_size": 16, "image_size": 32, "head_width": 32},
        text_cfg={"width": 64, "heads": 2, "layers": 2, "context_length": 77, "vocab_size": 49408},
    )
    transform = open_clip.image_transform(32, is_train=False)
    return OpenCLIPEncoder(model, transform, open_clip.SimpleTokenizer(), name="tiny", dim=24, fingerprint="x")
