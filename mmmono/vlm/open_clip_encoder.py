"""Any model of open_clip as an encoder."""

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

from mmmono.vlm.encoder import Encoder
from mmmono.vlm.resizing import bounded, by_torch

OpenCLIPModel: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP | open_clip.CoCa


@dataclass(frozen=True)
class Preprocess:
    """The PIL steps of an evaluation transform, with uint8 output; `OpenCLIPEncoder` normalizes on the device.

    uint8 pixels take a quarter of the memory of normalized floats when sent between processes and to a GPU.
    """

    steps: tuple[Callable[[Image], Image], ...]

    def __call__(self, image: Image) -> UInt8[Tensor, "3 height width"]:
        """Resize, crop and convert to RGB."""
        for step in self.steps:
            image = step(image)
        return pil_to_tensor(image)

    def by_torch(self) -> Preprocess:
        """Return the same with PyTorch's resize instead of Pillow's. Raises ConfigError if it resizes in another way."""
        return Preprocess(by_torch(self.steps))


@dataclass(frozen=True)
class Tokenize:
    """A tokenizer that trims each batch to its longest caption, if that does not change the text tower's output.

    Attributes:
        tokenizer: captions to token ids of the whole context length.
        pad_id: id of the padding that can be trimmed; None trims nothing.
    """

    tokenizer: Callable[[list[str]], Tensor]
    pad_id: int | None

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Return token ids; with a `pad_id`, trailing columns that contain only padding are removed."""
        tokens = self.tokenizer(list(captions))
        if self.pad_id is None or not len(tokens):
            return tokens
        used = (tokens != self.pad_id).any(dim=0).nonzero()
        return tokens[:, : int(used[-1]) + 1] if len(used) else tokens


class OpenCLIPEncoder(Encoder):
    """Image and text encoder around any open_clip model; weights are frozen, but gradients reach the pixels.

    Attributes:
        name, dim, fingerprint, preprocess, tokenize: see `Encoder`.
        model: the open_clip model.
    """

    tokenize: Tokenize

    def __init__(
        self,
        model: OpenCLIPModel,
        transform: Compose,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        name: str,
        dim: int,
        fingerprint: str,
    ) -> None:
        """Wrap `model` with its evaluation transform and tokenizer from open_clip.

        Args:
            model: CLIP, CustomTextCLIP or CoCa.
            transform: PIL steps, then to-tensor, then normalization, as from `open_clip.image_transform`.
            tokenizer: captions to token ids of the whole context length.
            name: see the class.
            dim: see the class.
            fingerprint: see the class.
        """
        super().__init__()
        *steps, _, normalize = transform.transforms
        assert isinstance(normalize, Normalize)
        # Convolutions are faster in channels-last layout, nearly twice on a CPU.
        self.model: OpenCLIPModel = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.preprocess = Preprocess(bounded(steps))
        self.tokenize = Tokenize(tokenizer, _harmless_padding(model))
        self._input_dtype = _input_dtype(model.visual)
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
        """Embed images, in float32 and not L2-normalized; differentiable for float input.

        Args:
            images: uint8 from `preprocess`, or floats that are already normalized as by open_clip's transform.
        """
        if images.dtype == torch.uint8:
            images = torch.addcmul(self._shift, images.to(self._scale.dtype), self._scale)
        images = images.to(self._input_dtype, memory_format=torch.channels_last)
        return self.model.encode_image(images, normalize=False).float()

    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed images with pixels in [0, 1], of the size that `preprocess` returns; differentiable."""
        return self.encode_image(torch.addcmul(self._shift, pixels, 255 * self._scale))

    def encode_text(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Embed token ids, padded to the whole context or trimmed by `tokenize`; float32 and not L2-normalized."""
        text = getattr(self.model, "text", self.model)
        length = tokens.shape[1] + _class_tokens(text)
        if isinstance(text, HFTextEncoder) or length == len(text.positional_embedding):
            return self.model.encode_text(tokens, normalize=False).float()
        # open_clip's towers add all positional embeddings, so trimmed tokens need trimmed positions and mask.
        prefix = "model." if text is self.model else "model.text."
        shortened = {
            f"{prefix}positional_embedding": text.positional_embedding[:length],
            f"{prefix}attn_mask": text.attn_mask[:length, :length],
        }
        tower = _TextTower(self.model)
        return torch.func.functional_call(tower, shortened, (tokens,), tie_weights=False).float()


class _TextTower(nn.Module):
    """Exposes `encode_text` as `forward`, which `functional_call` needs."""

    def __init__(self, model: OpenCLIPModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def _harmless_padding(model: OpenCLIPModel) -> int | None:
    """Return the padding token whose trailing columns can be removed without changing any embedding, or None."""
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        return text.config.pad_token_id  # the tower masks its padding
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    causal = getattr(text, "attn_mask", None) is not None and not _class_tokens(text)
    # A causal mask hides the padding from the end-of-text token, at which the embedding is read.
    return 0 if causal and pool in ("argmax", "eos") else None


def _class_tokens(text: nn.Module) -> int:
    """Number of positions beyond those of the tokens: CoCa's text tower appends a class token."""
    return 0 if getattr(text, "cls_emb", None) is None else 1


def _input_dtype(tower: nn.Module) -> torch.dtype:
    """Type of the first layer's weights; in half-precision models, norms and positions may still be float32."""
    return next(layer.weight.dtype for layer in tower.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def _device(model: OpenCLIPModel) -> torch.device:
    return next(model.parameters()).device
