"""Base class of image generators: encode a prompt and a reference image, generate images from embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.vlm import Encoder


class Generator(ABC):
    """Generate images from the embeddings of the encoder on whose features the study intervenes.

    Attributes:
        name: name in tables.
        joint: whether T and R are embeddings in the encoder's joint space, so that dictionaries and nearest-neighbor
            search apply to them.
    """

    name: str
    joint: bool

    @abstractmethod
    def encode(
        self, prompt: str, reference: Image.Image
    ) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"]]:
        """Return T and R of Section 4.3 with equal shapes, in float32 on the CPU; `tokens` is 1 for one embedding."""

    @abstractmethod
    def generate(
        self, prompt: str, embeddings: Float[Tensor, "images tokens dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Generate one RGB image per embedding; T itself gives generation without intervention.

        Args:
            prompt: prompt that T encodes.
            embeddings: intervened embeddings T′.
            seeds: seed of each image; equal seeds start from equal noise.

        Raises:
            ConfigError: the GPU runs out of memory.
        """


def encode_joint(
    encoder: Encoder, prompt: str, reference: Image.Image, device: str
) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]]:
    """Embed a text and an image in the joint space, without further normalization; returned on the CPU."""
    with torch.inference_mode():
        text = encoder.encode_text(encoder.tokenize([prompt]).to(device))
        image = encoder.encode_image(encoder.preprocess(reference)[None].to(device))
    return text.cpu().clone(), image.cpu().clone()
