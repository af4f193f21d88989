"""Stable Diffusion 2, the paper's generator: a U-Net that attends to the tokens of its encoder's text tower.

Its conditioning is not a point of the joint space but one vector per token, taken from the second-to-last layer of
ViT-H/14's text tower, without projection. The paper speaks of one embedding T and one R; here, R is the image's
embedding in the joint space, repeated for every token, and I indexes the dimensions of the token vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

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

LAYERS = ("penultimate", "final")
LENGTHS = ("prompt", "own")


@dataclass(kw_only=True, frozen=True)
class StableDiffusion2Settings(PipelineSettings):
    """Settings of `StableDiffusion2`.

    Attributes:
        layer: layer of the text tower: `penultimate` (with the final norm), on which the generator was trained, or
            `final`, from which the joint space is projected.
        projected: project tokens into the joint space, intervene there, and map the change back with the projection's
            pseudo-inverse. Otherwise dimension d of a token is identified with dimension d of the joint space.
        length: `prompt` scales R to the norm of each token, `own` keeps the encoder's norm.

    Raises:
        ConfigError: `layer` or `length` is unknown.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    layer: str = "penultimate"
    projected: bool = False
    length: str = "prompt"

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ConfigError(f"generator.layer={self.layer} is none of {', '.join(LAYERS)}")
        if self.length not in LENGTHS:
            raise ConfigError(f"generator.length={self.length} is none of {', '.join(LENGTHS)}")


class StableDiffusion2(Generator):
    """Generate images with diffusers' `StableDiffusionPipeline` from intervened token embeddings.

    Args:
        settings: the weights and how they are used.
        encoder: encoder on whose features the study intervenes; the generator must have been trained with it.
        device: device to compute on.

    Raises:
        ConfigError: tokens are not projected but differ in width from the joint space, or the GPU runs out of memory.
        ModelError: the weights cannot be loaded or belong to another encoder.
    """

    name = "sd2"

    def __init__(self, settings: StableDiffusion2Settings, encoder: OpenCLIPEncoder, device: str = "cpu") -> None:
        self.joint = settings.projected
        self._settings = settings
        self._encoder = encoder
        self._tower: Any = getattr(encoder.model, "text", encoder.model)
        self._pipeline = load_pipeline("StableDiffusionPipeline", settings, device)
        own = self._pipeline.text_encoder.get_input_embeddings().weight
        check_same_weights(own, self._tower.token_embedding.weight, settings.weights, encoder.name)
        self._device = device
        if not settings.projected and own.shape[1] != encoder.dim:
            raise ConfigError(
                f"tokens of {settings.weights} have {own.shape[1]} dimensions, the joint space of {encoder.name} "
                f"{encoder.dim}: set generator.projected=true"
            )

    def encode(
        self, prompt: str, reference: Image.Image
    ) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"]]:
        """Return the tokens of the prompt, and the reference's embedding repeated for each token."""
        tokens = self._tokens(prompt)
        _, image = encode_joint(self._encoder, prompt, reference, self._device)
        text = tokens @ self._projection if self.joint else tokens
        image = image.expand_as(text)
        if self._settings.length == "prompt":
            image = nn.functional.normalize(image, dim=-1) * torch.linalg.vector_norm(text, dim=-1, keepdim=True)
        return text, image

    def generate(
        self, prompt: str, embeddings: Float[Tensor, "images tokens dim"], seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Generate the images one by one; see `Generator.generate`."""
        tokens = self._tokens(prompt) if self.joint else torch.empty(0)
        negative = self._conditioning(prompt)[1]
        images = []
        for embedding, seed in zip(embeddings, seeds, strict=True):
            conditioning = tokens + self._lift(embedding - tokens @ self._projection) if self.joint else embedding
            with enough_gpu_memory(LESS):
                drawn = self._pipeline(
                    prompt_embeds=conditioning[None].to(negative.dtype).to(negative.device),
                    negative_prompt_embeds=negative,
                    generator=initial_noise(seed),
                    **self._settings.options(),
                )
            images += drawn.images
        return images

    def _conditioning(self, prompt: str) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), enough_gpu_memory(LESS):
            positive, negative = self._pipeline.encode_prompt(prompt, self._device, 1, True)
        return positive, negative

    def _tokens(self, prompt: str) -> Float[Tensor, "tokens width"]:
        if self._settings.layer == "penultimate":
            return self._conditioning(prompt)[0][0].float().cpu().clone()
        kept = []
        hook = self._tower.ln_final.register_forward_hook(lambda module, inputs, output: kept.append(output))
        with torch.inference_mode():  # full context length: the U-Net also attends to padding
            self._encoder.encode_text(self._encoder.tokenize.tokenizer([prompt]).to(self._device))
        hook.remove()
        return kept[0][0].float().cpu().clone()

    @property
    def _projection(self) -> Float[Tensor, "width dim"]:
        projection = self._tower.text_projection
        return (projection.weight.T if isinstance(projection, nn.Linear) else projection).detach().float().cpu()

    def _lift(self, change: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens width"]:
        """Least-squares inverse of the projection: the smallest change of tokens that projects closest to `change`."""
        return (change.double() @ torch.linalg.pinv(self._projection.double())).float()
