"""A CLIP-like model seen as two encoders into one joint space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from open_clip.hf_model import HFTextEncoder
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize
from torchvision.transforms.functional import pil_to_tensor

from mmmono.vlm.resizing import bounded

OpenCLIPModel: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP | open_clip.CoCa


@dataclass(frozen=True)
class Preprocess:
    """The part of an evaluation transform that works on PIL images; what is left is one multiply-add on the device.

    Bytes are a quarter of what normalized floats are to pass between processes and to move to a GPU.
    """

    steps: tuple[Callable[[Image], Image], ...]

    def __call__(self, image: Image) -> UInt8[Tensor, "3 height width"]:
        """Resize, crop and convert to RGB."""
        for step in self.steps:
            image = step(image)
        return pil_to_tensor(image)


@dataclass(frozen=True)
class Tokenize:
    """A tokenizer whose batches are as wide as their longest caption, where the text tower gives the same for it."""

    tokenizer: Callable[[list[str]], Tensor]
    pad_id: int | None

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Token ids; with a `pad_id`, trailing columns that hold nothing else are left out."""
        tokens = self.tokenizer(list(captions))
        if self.pad_id is None or not len(tokens):
            return tokens
        used = (tokens != self.pad_id).any(dim=0).nonzero()
        return tokens[:, : int(used[-1]) + 1] if len(used) else tokens


class DualEncoder(nn.Module):
    """Two encoders into one joint space, around any open_clip model; frozen, while gradients do reach the pixels.

    Attributes:
        name: what tables and figures call the model.
        dim: width of the joint space.
        fingerprint: digest that identifies architecture and weights.
        preprocess: PIL image to bytes `[3, height, width]`. Like `tokenize`, it can be pickled without the model.
        tokenize: captions to token ids `[batch, tokens]`.
        model: the open_clip model.
    """

    def __init__(
        self,
        model: OpenCLIPModel,
        transform: Compose,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        name: str,
        dim: int,
        fingerprint: str,
        input_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap `model`, with open_clip's evaluation transform and tokenizer for it.

        Args:
            model: CLIP, CustomTextCLIP or CoCa.
            transform: PIL steps, then to-tensor, then normalization, as `open_clip.image_transform` makes it.
            tokenizer: captions to token ids of the whole context length.
            name: see the class.
            dim: see the class.
            fingerprint: see the class.
            input_dtype: what the image tower takes.
        """
        super().__init__()
        *steps, _, normalize = transform.transforms
        assert isinstance(normalize, Normalize)
        # Convolutions are faster, nearly twice on a CPU, where channels lie next to each other.
        self.model: OpenCLIPModel = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.preprocess = Preprocess(bounded(steps))
        self.tokenize = Tokenize(tokenizer, _harmless_padding(model))
        self._input_dtype = input_dtype
        mean, std = (
            torch.tensor(values, device=_device(model)).view(3, 1, 1) for values in (normalize.mean, normalize.std)
        )
        self._scale: Tensor
        self._shift: Tensor
        self.register_buffer("_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("_shift", -mean / std, persistent=False)

    def encode_image(
        self, images: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Embed images; not L2-normalized, in float32, differentiable in float input.

        Args:
            images: bytes as `preprocess` makes them, or floats that are already scaled and normalized as open_clip's
                own transform makes them.
        """
        if images.dtype == torch.uint8:
            images = torch.addcmul(self._shift, images.to(self._scale.dtype), self._scale)
        images = images.to(self._input_dtype, memory_format=torch.channels_last)
        return self.model.encode_image(images, normalize=False).float()

    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed pictures whose pixels lie between 0 and 1, at the size `preprocess` makes; differentiable."""
        return self.encode_image(torch.addcmul(self._shift, pixels, 255 * self._scale))

    def encode_text(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Embed token ids, padded to the whole context or as short as `tokenize` makes them; not L2-normalized."""
        text = getattr(self.model, "text", self.model)
        length = tokens.shape[1] + _class_tokens(text)
        if isinstance(text, HFTextEncoder) or length == len(text.positional_embedding):
            return self.model.encode_text(tokens, normalize=False).float()
        # open_clip's towers add all positions at once, so a shorter context needs shorter positions and mask.
        prefix = "model." if text is self.model else "model.text."
        shortened = {
            f"{prefix}positional_embedding": text.positional_embedding[:length],
            f"{prefix}attn_mask": text.attn_mask[:length, :length],
        }
        tower = _TextTower(self.model)
        return torch.func.functional_call(tower, shortened, (tokens,), tie_weights=False).float()


class _TextTower(nn.Module):
    """Gives `encode_text` the name `forward`, which `functional_call` calls."""

    def __init__(self, model: OpenCLIPModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def _harmless_padding(model: OpenCLIPModel) -> int | None:
    """The token whose trailing columns can be left out without changing any embedding, or None."""
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        return text.config.pad_token_id  # it masks them
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    causal = getattr(text, "attn_mask", None) is not None and not _class_tokens(text)
    # What comes after the end-of-text token, where the embedding is read, cannot reach it through a causal mask.
    return 0 if causal and pool in ("argmax", "eos") else None


def _class_tokens(text: nn.Module) -> int:
    """Positions beyond those of the tokens: CoCa's text tower appends a class token by itself."""
    return 0 if getattr(text, "cls_emb", None) is None else 1


def _device(model: OpenCLIPModel) -> torch.device:
    return next(model.parameters()).device
