"""The interface that every model implements: two encoders into a joint embedding space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Image and text encoder into one space. Everything downstream uses a model through this class alone.

    Attributes:
        name: name of the model in tables and figures.
        dim: width of the joint embedding space.
        fingerprint: digest that identifies architecture and weights.
        preprocess: PIL image to uint8 `[3, height, width]`. Like `tokenize`, it can be pickled without the model.
        tokenize: captions to token ids `[batch, tokens]`.
    """

    name: str
    dim: int
    fingerprint: str
    preprocess: Callable[[Image], UInt8[Tensor, "3 height width"]]
    tokenize: Callable[[Sequence[str]], Int[Tensor, "batch tokens"]]

    @abstractmethod
    def encode_image(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images, in float32 and not L2-normalized."""

    @abstractmethod
    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embed images with pixels in [0, 1], of the size that `preprocess` returns; differentiable."""

    @abstractmethod
    def encode_text(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Embed token ids, in float32 and not L2-normalized."""
