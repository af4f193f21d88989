"""A two-tower model of transformers as an encoder, with its own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn

from mmmono.core.errors import ModelError
from mmmono.vlm.encoder import Encoder
from mmmono.vlm.naflex import GRID, grid_of, packed, patches_of
from mmmono.vlm.resizing import narrowed

AGREES = 1e-3  # largest difference of normalized pixels between the processor's own and the split one's


@dataclass(frozen=True)
class ResizedPixels:
    """The steps of an image processor up to resized and cropped uint8 pixels; the encoder normalizes on the device.

    Attributes:
        processor: transformers' image processor.
    """

    processor: Any

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 height width"]:
        """Resize and crop an RGB image; NaFlex's patches come in a strip, see `mmmono.vlm.naflex`."""
        if getattr(self.processor, "do_center_crop", False):
            image = narrowed(image)
        # EfficientNet's processor has a second normalization.
        others = {"include_top": False} if hasattr(self.processor, "include_top") else {}
        made = self.processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt", **others)
        return packed(made) if GRID in made else made["pixel_values"][0].to(torch.uint8)


@dataclass(frozen=True)
class TokenizeAndMask:
    """A tokenizer whose attention mask is part of the token ids: those of masked positions are replaced by -1 - id.

    Attributes:
        tokenizer: transformers' tokenizer.
        context_length: captions are cut to as many tokens.
        padded: whether all captions are padded to that length, rather than to the longest of a batch.
    """

    tokenizer: Any
    context_length: int
    padded: bool

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Return the ids of the captions."""
        if not len(captions):
            return torch.empty(0, self.context_length, dtype=torch.long)
        found = self.tokenizer(
            list(captions),
            padding="max_length" if self.padded else "longest",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        ids = found["input_ids"]
        return torch.where(found["attention_mask"].bool(), ids, -1 - ids) if "attention_mask" in found else ids

    @property
    def masks(self) -> bool:
        """Whether the model gets a mask: some are trained without one, and see the padding."""
        return "attention_mask" in self.tokenizer.model_input_names


class TransformersEncoder(Encoder):
    """Image and text encoder around CLIP, SigLIP, SigLIP 2, AIMv2 or ALIGN; weights are frozen, gradients reach pixels.

    `encode_image` and `encode_text` are transformers' `get_image_features` and `get_text_features`.

    Attributes:
        name, dim, fingerprint, preprocess, tokenize: see `Encoder`.
        model: transformers' model.
    """

    preprocess: ResizedPixels
    tokenize: TokenizeAndMask

    def __init__(
        self,
        model: nn.Module,
        image_processor: Any,
        tokenize: TokenizeAndMask,
        *,
        name: str,
        dim: int,
        fingerprint: str,
    ) -> None:
        """Wrap `model` with its image processor and tokenizer.

        Raises:
            ModelError: the processor does more to resized pixels than to scale and shift each channel.
        """
        super().__init__()
        wrapped: Any = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if wrapped.config.model_type == "aimv2":
            attend_backwards_only(wrapped.text_model)
        self.model: Any = wrapped
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.preprocess = ResizedPixels(image_processor)
        self.tokenize = tokenize
        scale, shift = measured_normalization(image_processor, self.preprocess)
        self._scale: Tensor
        self._shift: Tensor
        self.register_buffer("_scale", scale, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    def encode_image(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images, in float32 and not L2-normalized."""
        pixels = torch.addcmul(self._shift, images.to(self._scale.dtype), self._scale)
        if not self.naflex:
            return self._image_features(pixels)
        grid = grid_of(images)
        patches, mask = patches_of(pixels[..., :-1], grid)
        inputs = {"pixel_values": patches, "pixel_attention_mask": mask, GRID: grid}
        return pooled(self.model.get_image_features(**inputs))

    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed images with pixels in [0, 1], of the size that `preprocess` returns; differentiable.

        Raises:
            ModelError: the model takes patches of any aspect ratio, so that no image of fixed size can be optimized.
        """
        if self.naflex:
            raise ModelError(
                f"{self.name} takes images of any aspect ratio, and pixels are optimized for one size only: choose a SigLIP "
                "2 of fixed resolution, such as siglip2-base-patch16-224"
            )
        return self._image_features(torch.addcmul(self._shift, pixels, 255 * self._scale))

    def _image_features(self, pixels: Tensor) -> Tensor:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return pooled(self.model.get_image_features(pixel_values=pixels))

    @property
    def naflex(self) -> bool:
        """Whether images are patches of any aspect ratio, see `mmmono.vlm.naflex`."""
        return GRID in self.preprocess.processor.model_input_names

    def encode_text(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Embed token ids from `tokenize`, in float32 and not L2-normalized."""
        kept = tokens >= 0
        mask = {"attention_mask": kept.long()} if self.tokenize.masks else {}
        return pooled(self.model.get_text_features(input_ids=torch.where(kept, tokens, -1 - tokens), **mask))


def attend_backwards_only(text_tower: nn.Module) -> None:
    """Let the tokens of AIMv2's text tower attend to earlier ones alone, whatever batch a caption is in.

    Transformers leaves this to the attention mask, and drops the mask of a batch without padding: captions that are alone,
    or all of one length, would be attended to in both directions, and get other embeddings.
    """
    for module in text_tower.modules():
        if hasattr(module, "is_causal"):
            setattr(module, "is_causal", True)  # noqa: B010 - of transformers, which has no type for it


def pooled(features: Any) -> Float[Tensor, "batch dim"]:
    """Return the embeddings in what `get_image_features` and `get_text_features` give."""
    embeddings: Tensor = features.pooler_output
    return embeddings.float()


def measured_normalization(
    processor: Any, resized: ResizedPixels
) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Measure how an image processor normalizes: its output is `scale * pixels + shift`, for pixels from 0 to 255.

    Processors say it in many settings, so that they are asked with black and white images, and checked with another one.

    Raises:
        ModelError: it does something else to resized pixels.
    """

    def own(image: Image.Image) -> Tensor:
        made = processor(images=image, return_tensors="pt")
        values = made["pixel_values"][0].float()
        return (
            values.reshape(-1, 3)[: made[GRID].prod() * values.shape[1] // 3].T if GRID in made else values.flatten(1)
        )

    def split(image: Image.Image) -> Tensor:
        pixels = resized(image).float()
        if GRID not in processor.model_input_names:
            return pixels.flatten(1)
        grid = grid_of(pixels.unsqueeze(0))
        return patches_of(pixels[None, ..., :-1], grid)[0].reshape(-1, 3)[: grid.prod() * len(pixels[0]) ** 2].T

    black, white = (own(Image.new("RGB", (64, 48), color)).mean(1, keepdim=True) for color in ("black", "white"))
    scale, shift = (white - black) / 255, black
    ramp = Image.linear_gradient("L")
    test = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_90), Image.eval(ramp, lambda x: 255 - x)))
    wanted, found = own(test), split(test)
    if wanted.shape != found.shape or not torch.allclose(found * scale + shift, wanted, atol=AGREES):
        raise ModelError(
            f"the image processor {type(processor).__name__} does more to resized pixels than to scale and shift them: "
            "open the model with open_clip, if it is there too"
        )
    return scale.unsqueeze(2), shift.unsqueeze(2)
