"""Concept labels from a transformers image classifier, such as the paper's gender classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from PIL.Image import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from mmmono.case_studies.concepts import Array, Classify, ConceptLabels, ConceptPair, Labeler
from mmmono.case_studies.weights import check_model
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import unchanged, weights_identity
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.vlm.hub import hub_or_cache, hub_reason
from mmmono.vlm.resizing import narrowed

INSTEAD = "check its name and the network, give a local folder, or use labels=words"


class ImageClassifier(Labeler):
    """Label images with a classifier; a concept's probability sums over the classes that its words name.

    Args:
        model: hub id or local folder.
        batch_size: images per forward pass.

    Raises:
        ConfigError: the batch size is not positive.
    """

    sees_images = True

    def __init__(self, model: str, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigError(f"labels.batch_size={batch_size} must be at least 1")
        self.model = model
        self.batch_size = batch_size
        self._loaded: tuple[Any, Any, str] | None = None

    def identity(self) -> str:
        """The model's name or, for a local folder, a digest of its files."""
        return f"classifier {self._weights}"

    @cached_property
    def _weights(self) -> str:
        """What identifies the weights, when it was first asked for."""
        return weights_identity(self.model)

    @cached_property
    def names(self) -> list[str]:
        """Names of the classes, read from the configuration. Raises ModelError if it cannot be loaded."""
        try:
            with hub_or_cache():
                config = AutoConfig.from_pretrained(self.model)
        except Exception as error:  # transformers passes on all errors of the hub client
            raise self._cannot_be_had(error) from error
        return [str(config.id2label[i]) for i in range(config.num_labels)]

    def check(self, pair: ConceptPair) -> None:
        """Check that the model is available and has a class for each concept; see `Labeler.check`."""
        check_model("labels.model", self.model, INSTEAD)
        self._members(pair)

    def _members(self, pair: ConceptPair) -> tuple[Bool[Array, " classes"], Bool[Array, " classes"]]:
        """Masks of the classes of concept A and of concept B, without classes that match both."""
        found = np.array([pair.matches(name) for name in self.names]).reshape(-1, 2)
        for concept, members in ((pair.a, found[:, 0]), (pair.b, found[:, 1])):
            if not members.any():
                raise ConfigError(
                    f"labels.model={self.model} has no label for {concept!r}: it knows {', '.join(self.names)}; name the "
                    "words of the one that is meant in concept.words_a or concept.words_b"
                )
        both = found.all(1)
        return found[:, 0] & ~both, found[:, 1] & ~both

    def load(self, device: str) -> None:
        """Load the model onto a device. Raises ModelError if it cannot be loaded, or was changed since `identity`."""
        files = f"the files of labels.model={self.model}"
        with unchanged(self._weights, lambda: weights_identity(self.model), files):
            try:
                with hub_or_cache():
                    processor = AutoImageProcessor.from_pretrained(self.model)
                    model = AutoModelForImageClassification.from_pretrained(self.model)
            except Exception as error:  # transformers passes on all errors of the hub client
                raise self._cannot_be_had(error) from error
        self._loaded = processor, model.eval().requires_grad_(False).to(device), device

    def probabilities(self, images: Sequence[Image]) -> Float[Array, "images classes"]:
        """Class probabilities of the images in float32, computed in one forward pass; call `load` first.

        Raises:
            ConfigError: the GPU runs out of memory.
        """
        assert self._loaded is not None
        processor, model, device = self._loaded
        crops = getattr(processor, "do_center_crop", False)
        inputs = processor(
            images=[narrowed(image) if crops else image for image in (i.convert("RGB") for i in images)],
            return_tensors="pt",
        )
        with (
            enough_gpu_memory(f"lower labels.batch_size={self.batch_size}, and run the same again"),
            torch.inference_mode(),
        ):
            return model(**inputs.to(device)).logits.softmax(-1).float().cpu().numpy()

    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Label each image with the concept whose probability exceeds ½, if any."""
        a, b = self._members(pair)
        probability = classify(self)
        seen = ~np.isnan(probability).any(1)
        p_a, p_b = (np.where(seen, probability[:, members].sum(1), 0.0) for members in (a, b))
        confidence = np.maximum(p_a, p_b)
        sure = confidence > 0.5
        return ConceptLabels(
            sure & (p_a > p_b), sure & (p_b > p_a), confidence,
            ambiguous=int((seen & ~sure).sum()), missing=int((~seen).sum()),
        )  # fmt: skip

    def _cannot_be_had(self, error: Exception) -> ModelError:
        return ModelError(f"labels.model={self.model} cannot be had ({hub_reason(error)}): {INSTEAD}")
