"""What every generator shares: it encodes a prompt and a reference picture, and draws from what is made of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.vlm import DualEncoder


class Generator(ABC):
    """Draws pictures from embeddings of the encoder whose features are intervened on.

    Attributes:
        name: what tables call it.
        joint: whether T and R are embeddings in the encoder's joint space, so that a dictionary can be applied to them, and
            pictures near them be looked up.
    """

    name: str
    joint: bool

    @abstractmethod
    def encode(
        self, prompt: str, reference: Image.Image
    ) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"]]:
        """T and R of Section 4.3, of equal shape, in float32 on the CPU; one token where the space has no more."""

    @abstractmethod
    def generate(
        self, prompt: str, embeddings: Float[Tensor, "pictures tokens dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """One RGB picture from each embedding; equal seeds start from equal noise. From T itself it is plain generation.

        Raises:
            ModelError: the device has too little memory.
        """


def encode_joint(
    encoder: DualEncoder, prompt: str, reference: Image.Image, device: str
) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]]:
    """Embeddings of a text and a picture in the joint space, as the encoder gives them, on the CPU."""
    with torch.inference_mode():
        text = encoder.encode_text(encoder.tokenize([prompt]).to(device))
        image = encoder.encode_image(encoder.preprocess(reference)[None].to(device))
    return text.cpu().clone(), image.cpu().clone()
