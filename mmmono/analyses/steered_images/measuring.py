"""What is seen in generated images: how strongly they activate features, and what an independent judge finds them like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from PIL import Image
from torch import Tensor

from mmmono.case_studies.image_measures import mean_cosine
from mmmono.features import FeatureSet
from mmmono.features.rows import prepare
from mmmono.interpretability.embedders import Embedder
from mmmono.pipeline.images import read_image
from mmmono.vlm import Encoder

BATCH = 64  # images in a forward pass


@dataclass(frozen=True)
class Seen:
    """Generated images, prompt by prompt and seed by seed.

    Attributes:
        codes: activations of all features.
        likeness: mean cosine with the real images that activate each steered feature most, by the judge.
    """

    codes: Float64[Tensor, "images features"]
    likeness: Float64[Tensor, "images steered"]

    def by_prompt(self, seeds: int) -> tuple[Float64[Tensor, "prompts features"], Float64[Tensor, "prompts steered"]]:
        """Means over the seeds of each prompt."""
        codes, likeness = (values.unflatten(0, (-1, seeds)).mean(1) for values in (self.codes, self.likeness))
        return codes, likeness


class Eyes:
    """Looks at generated images with the model whose features are steered, and with an independent judge.

    Args:
        encoder: the model.
        features: the steered feature set, on `device`.
        judge: embeds images as unit vectors.
        normalize: whether the feature set takes L2-normalized embeddings.
        device: where model and features are.
    """

    def __init__(self, encoder: Encoder, features: FeatureSet, judge: Embedder, normalize: bool, device: str) -> None:
        self._encoder, self._features, self._judge = encoder, features, judge
        self._normalize, self._device = normalize, device
        self._targets = torch.empty(0, 0)

    def look_for(self, real: Mapping[int, Sequence[Image.Image]]) -> None:
        """Keep what the images of each feature look like: those that activate it most.

        Args:
            real: these images by feature, in the order in which likeness to them is given.
        """
        embedded = [self._judge.embed_images(images).mean(0, keepdim=True) for images in real.values()]
        self._targets = torch.cat(embedded)

    def see(self, files: Sequence[Path]) -> Seen:
        """Look at images in files."""
        images = [read_image(file) for file in files]
        judged = self._judge.embed_images(images)
        likeness = torch.stack([mean_cosine(judged, target[None]) for target in self._targets], dim=1)
        return Seen(self._codes(images), likeness.double())

    def _codes(self, images: Sequence[Image.Image]) -> Float[Tensor, "images features"]:
        rows = []
        for start in range(0, len(images), BATCH):
            pixels = torch.stack([self._encoder.preprocess(image) for image in images[start : start + BATCH]])
            with torch.inference_mode():
                embedded = self._encoder.encode_image(pixels.to(self._device))
                unit = prepare(embedded, self._normalize, self._device, "the generated images")
                rows.append(self._features.encode(unit, "image").double().cpu())
        return torch.cat(rows)
