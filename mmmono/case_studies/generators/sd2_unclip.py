"""Stable unCLIP 2.1, which generates from image embeddings in the joint space, where Section 4.3 applies literally.

T is the prompt's embedding in the joint space, used in place of an image embedding. The pipeline also takes a prompt;
`guided=false` leaves it empty, so that T′ alone determines the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.case_studies.generators.base import Generator, encode_joint
from mmmono.case_studies.generators.diffusers_pipelines import (
    LESS,
    PipelineSettings,
    check_same_weights,
    initial_noise,
    load_pipeline,
)
from mmmono.core.errors import ConfigError
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.vlm import OpenCLIPEncoder

LENGTHS = ("reference", "own")


@dataclass(kw_only=True, frozen=True)
class StableUnCLIPSettings(PipelineSettings):
    """Settings of `StableUnCLIP`.

    Attributes:
        length: `reference` scales T to the norm of R, because text and image embeddings differ in norm and the
            generator was trained on image embeddings only; `own` keeps the encoder's norm.
        guided: also give the pipeline the prompt.
        noise_level: level of the noise that the pipeline adds to the embedding; 0 for none.

    Raises:
        ConfigError: `length` is unknown.
    """

    steps: int = 20
    guidance_scale: float = 10.0
    length: str = "reference"
    guided: bool = False
    noise_level: int = 0

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise ConfigError(f"generator.length={self.length} is none of {', '.join(LENGTHS)}")

    def options(self) -> dict[str, Any]:
        """Arguments of each call of the pipeline."""
        return {**super().options(), "noise_level": self.noise_level}


class StableUnCLIP(Generator):
    """Generate images with diffusers' `StableUnCLIPImg2ImgPipeline` from intervened embeddings.

    Args:
        settings: the weights and how they are used.
        encoder: encoder on whose features the study intervenes; the generator must have been trained with it.
        device: device to compute on.

    Raises:
        ConfigError: the GPU runs out of memory.
        ModelError: the weights cannot be loaded or belong to another encoder.
    """

    name = "sd2_unclip"
    joint = True

    def __init__(self, settings: StableUnCLIPSettings, encoder: OpenCLIPEncoder, device: str = "cpu") -> None:
        self._settings = settings
        self._encoder = encoder
        self._pipeline = load_pipeline("StableUnCLIPImg2ImgPipeline", settings, device)
        own = self._pipeline.image_encoder.visual_projection.weight
        check_same_weights(own, encoder.model.visual.proj.T, settings.weights, encoder.name)
        self._device = device

    def encode(self, prompt: str, reference: Image.Image) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]]:
        """Return the embeddings of prompt and reference in the joint space."""
        text, image = encode_joint(self._encoder, prompt, reference, self._device)
        if self._settings.length == "reference":
            text = text * (torch.linalg.vector_norm(image) / torch.linalg.vector_norm(text))
        return text, image

    def generate(
        self, prompt: str, embeddings: Float[Tensor, "images 1 dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Generate the images one by one; see `Generator.generate`."""
        images = []
        for embedding, seed in zip(embeddings, seeds, strict=True):
            with enough_gpu_memory(LESS):
                drawn = self._pipeline(
                    prompt=prompt if self._settings.guided else "",
                    image_embeds=embedding.to(self._pipeline.dtype).to(self._device),
                    generator=initial_noise(seed),
                    **self._settings.options(),
                )
            images += drawn.images
        return images
