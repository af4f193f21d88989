"""Stable unCLIP 2.1, which generates from image embeddings in the joint space, where Section 4.3 applies literally.

T is the prompt's embedding in the joint space, used in place of an image embedding. The pipeline also takes a prompt;
`guided=false` leaves it empty, so that T′ alone determines the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmmono.case_studies.generators.base import Generator, encode_joint
from mmmono.case_studies.generators.diffusers_pipelines import (
    check_same_weights,
    enough_memory,
    initial_noise,
    load_pipeline,
)
from mmmono.core.errors import ConfigError
from mmmono.vlm import DualEncoder

LENGTHS = ("reference", "own")


class StableUnCLIP(Generator):
    """Generate images with diffusers' `StableUnCLIPImg2ImgPipeline` from intervened embeddings.

    Args:
        weights: hub id or folder.
        encoder: encoder on whose features the study intervenes; the generator must have been trained with it.
        device: device to compute on.
        dtype: float32, float16 or bfloat16.
        cpu_offload: keep only the active part of the pipeline on the GPU.
        length: `reference` scales T to the norm of R, because text and image embeddings differ in norm and the
            generator was trained on image embeddings only; `own` keeps the encoder's norm.
        guided: also give the pipeline the prompt.
        noise_level: level of the noise that the pipeline adds to the embedding; 0 for none.
        steps, guidance_scale, height, width: settings of the pipeline; None for its default size.

    Raises:
        ConfigError: `length` is unknown.
        ModelError: the weights cannot be loaded or belong to another encoder, or the GPU has too little memory.
    """

    name = "sd2_unclip"
    joint = True

    def __init__(
        self,
        weights: str,
        encoder: DualEncoder,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        cpu_offload: bool = False,
        length: str = "reference",
        guided: bool = False,
        noise_level: int = 0,
        steps: int = 20,
        guidance_scale: float = 10.0,
        height: int | None = None,
        width: int | None = None,
    ) -> None:
        check_options(length)
        self._encoder = encoder
        self._pipeline = load_pipeline("StableUnCLIPImg2ImgPipeline", weights, dtype, device, cpu_offload)
        own = self._pipeline.image_encoder.visual_projection.weight
        check_same_weights(own, encoder.model.visual.proj.T, weights, encoder.name)
        self._device = device
        self._length = length
        self._guided = guided
        self._options = {
            "num_inference_steps": steps, "guidance_scale": guidance_scale, "noise_level": noise_level,
            "height": height, "width": width,
        }  # fmt: skip

    def encode(self, prompt: str, reference: Image.Image) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]]:
        """Return the embeddings of prompt and reference in the joint space."""
        text, image = encode_joint(self._encoder, prompt, reference, self._device)
        if self._length == "reference":
            text = text * (torch.linalg.vector_norm(image) / torch.linalg.vector_norm(text))
        return text, image

    def generate(
        self, prompt: str, embeddings: Float[Tensor, "pictures 1 dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Generate the images one by one; see `Generator.generate`."""
        pictures = []
        for embedding, seed in zip(embeddings, seeds, strict=True):
            with enough_memory(self._device):
                drawn = self._pipeline(
                    prompt=prompt if self._guided else "",
                    image_embeds=embedding.to(self._pipeline.dtype).to(self._device),
                    generator=initial_noise(seed),
                    **self._options,
                )
            pictures += drawn.images
        return pictures


def check_options(length: str) -> None:
    """Raise ConfigError if `length` is unknown."""
    if length not in LENGTHS:
        raise ConfigError(f"generator.length={length} is none of {', '.join(LENGTHS)}")
