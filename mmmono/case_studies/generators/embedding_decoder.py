"""Built-in generator: a small image decoder for joint embeddings, trained on the pairs of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmmono.case_studies.generators.base import Generator, encode_joint
from mmmono.case_studies.generators.diffusers_pipelines import initial_noise
from mmmono.case_studies.generators.flow import FlowPlan, ImageFlow, fit_flow
from mmmono.core.errors import ModelError
from mmmono.vlm import Encoder


class EmbeddingDecoder(Generator):
    """Generate images with an `ImageFlow` from the embeddings of the encoder it was trained on.

    Args:
        folder: folder written by `train_embedding_decoder`.
        encoder: encoder on whose features the study intervenes.
        device: device to compute on.
        steps: number of integration steps.
        guidance: see `ImageFlow.draw`.

    Raises:
        ModelError: the folder holds no decoder, or one trained on embeddings of another encoder.
    """

    name = "embedding_decoder"
    joint = True

    def __init__(
        self, folder: Path, encoder: Encoder, *, device: str = "cpu", steps: int = 20, guidance: float = 1.5
    ) -> None:
        self._flow, known = ImageFlow.from_pretrained(folder)
        if known["encoder"] != encoder.fingerprint:
            raise ModelError(
                f"the embedding decoder in {folder} was trained on embeddings of {known['encoder']}, not of "
                f"{encoder.fingerprint}: choose that model, or let one be trained for {encoder.name}"
            )
        self._flow.to(device)
        self._encoder = encoder
        self._normalize = bool(known["normalize"])
        self._device = device
        self._steps = steps
        self._guidance = guidance

    def encode(self, prompt: str, reference: Image.Image) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]]:
        """Return T and R in the joint space, L2-normalized if the decoder was trained on normalized embeddings."""
        text, image = encode_joint(self._encoder, prompt, reference, self._device)
        return (F.normalize(text, dim=1), F.normalize(image, dim=1)) if self._normalize else (text, image)

    def generate(
        self, prompt: str, embeddings: Float[Tensor, "images 1 dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Generate all images in one batch; see `Generator.generate`."""
        components = self._flow.config["components"]
        noise = torch.cat([torch.randn(1, components, generator=initial_noise(seed)) for seed in seeds])
        drawn = self._flow.draw(embeddings[:, 0].to(self._device), noise.to(self._device), self._steps, self._guidance)
        return [Image.fromarray(image) for image in drawn.cpu().numpy()]


@dataclass(frozen=True)
class EmbeddedImages:
    """Images and the embeddings of the images and of their captions, row by row.

    Attributes:
        targets: square images.
        image, text: embeddings of the images and of their captions.
        encoder: fingerprint of the encoder of the embeddings.
        normalize: whether the embeddings are L2-normalized.
    """

    targets: UInt8[Tensor, "images height width 3"]
    image: Float[Tensor, "images dim"]
    text: Float[Tensor, "images dim"]
    encoder: str
    normalize: bool


def train_embedding_decoder(folder: Path, pairs: EmbeddedImages, plan: FlowPlan, seed: int) -> None:
    """Train a flow and save it in `folder`.

    Args:
        folder: folder for weights and configuration.
        pairs: images of side `plan.pixels` with their embeddings.
        plan: settings of the training.
        seed: seed of initialization and training.

    Raises:
        ModelError: there are fewer than two images.
    """
    flow, loss = fit_flow(pairs.targets, pairs.image, pairs.text, plan, seed)
    flow.save_pretrained(
        folder,
        {"encoder": pairs.encoder, "normalize": pairs.normalize, "images": len(pairs.targets), "loss": loss},
    )
