"""Embedding models h of Section 3.2.1, which measure how similar two images or two texts are.

The paper's are independent of the model whose features are scored or, as Appendix A.3.1 allows, that model itself. Here all
are independent of all models but DrawingCLIP, whose heads are fitted on two towers: both are those of the offline embedder,
and the text tower is the paper's. What DrawingCLIP's features respond to is what these towers see, and tables say so.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import timm
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Compose

from mmmono.core.artifacts import digest
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import file_fingerprint, unchanged, weights_identity
from mmmono.core.text import message_of
from mmmono.features import Modality
from mmmono.interpretability.text_likeness import TextComparer
from mmmono.vlm.demo_towers import (
    EFFICIENTNET,
    EFFICIENTNET_SHA256,
    MINILM_SHA256,
    checked_minilm_weights,
    efficientnet_state_dict,
    minilm_folder,
)
from mmmono.vlm.hub import hub_or_cache, hub_reason
from mmmono.vlm.resizing import bounded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "minilm-l6-v2"  # in the name of DrawingCLIP's text tower, or of its folder
THREADS = min(8, os.cpu_count() or 1)  # for resizing images


class Embedder(TextComparer):
    """Embed images and texts as unit vectors; the two modalities need not share a space.

    Attributes:
        fingerprint: digest that identifies the weights; cached embeddings are stored under it.
    """

    sees_images: ClassVar[bool] = True

    @abstractmethod
    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "images image_dim"]:
        """Embed images as unit vectors, float32 on the CPU."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts text_dim"]:
        """Embed texts as unit vectors, float32 on the CPU."""

    def _vectors(self, texts: Sequence[str]) -> Float[Tensor, "texts text_dim"]:
        return self.embed_texts(texts)


@dataclass(eq=False)
class TimmSentenceEmbedder(Embedder):
    """Embed images with a timm model (pooled features, no classifier) and texts with a Sentence Transformer.

    Each model's weights are loaded when they are first used.

    Attributes:
        name: name in tables.
        image_model: timm's name of the architecture, with its pretrained tag.
        text_model: name of a Sentence Transformers model, or a folder that holds one.
        image_weights: returns a state dict for the image model, instead of timm's pretrained weights.
        identify: returns the fingerprint of the weights as they are now; None for a digest of both names, or of a folder's
            content.
        device: device to compute on.
        batch_size: samples per forward pass.

    Raises:
        ConfigError: the batch size is not positive.
    """

    name: str
    image_model: str
    text_model: str
    _: KW_ONLY
    image_weights: Callable[[], dict[str, Tensor]] | None = None
    identify: Callable[[], str] | None = None
    device: str = "cpu"
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"embedder.batch_size={self.batch_size} must be at least 1")
        self.fingerprint = self._identity_now()

    def _identity_now(self) -> str:
        if self.identify is not None:
            return self.identify()
        return digest({"image": self.image_model, "text": weights_identity(self.text_model)}, 16)

    def _unchanged(self) -> AbstractContextManager[None]:
        """Enclose the loading of weights that must be those of the fingerprint; see `unchanged`."""
        return unchanged(self.fingerprint, self._identity_now, f"the weights of embedder={self.name}")

    @cached_property
    def _image_tower(self) -> nn.Module:
        with self._unchanged():
            return self._load_image_tower()

    def _load_image_tower(self) -> nn.Module:
        try:
            with hub_or_cache():
                model = timm.create_model(self.image_model, pretrained=self.image_weights is None)
        except Exception as error:  # timm passes on all errors of the hub client
            raise ModelError(
                f"the image model {self.image_model} of embedder={self.name} cannot be had ({hub_reason(error)}): check "
                "its name and the network, give a local file as embedder.image_checkpoint=..., or use embedder=offline"
            ) from error
        if self.image_weights is not None:
            try:
                model.load_state_dict(self.image_weights())
            except RuntimeError as error:
                raise ModelError(
                    f"the weights given for {self.image_model} of embedder={self.name} do not fit it "
                    f"({message_of(error)}): give that model's own state dict, with its classifier"
                ) from error
        model.reset_classifier(0)
        return model.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)

    @cached_property
    def _transform(self) -> Callable[[Image], Tensor]:
        config = timm.data.resolve_model_data_config(self._image_tower)
        transform = timm.data.create_transform(**config, is_training=False)
        return Compose(bounded(transform.transforms))

    @cached_property
    def _sentences(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        with self._unchanged():
            try:
                with hub_or_cache():
                    return SentenceTransformer(self.text_model, device=self.device)
            except Exception as error:  # Sentence Transformers passes on all errors of the hub client
                raise ModelError(
                    f"the text model {self.text_model} of embedder={self.name} cannot be had ({hub_reason(error)}): check "
                    "its name and the network, give a local folder as embedder.text_model=..., or use embedder=offline"
                ) from error

    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "images image_dim"]:
        """Normalized pooled features of the image model. Raises ModelError if its weights cannot be loaded."""
        rows = []
        transform = self._transform
        with ThreadPoolExecutor(THREADS) as pool, torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                part = [image.convert("RGB") for image in images[start : start + self.batch_size]]
                batch = torch.stack(list(pool.map(transform, part)))
                batch = batch.to(self.device, memory_format=torch.channels_last)
                rows.append(F.normalize(self._image_tower(batch).float(), dim=1).cpu())
        return torch.cat(rows)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts text_dim"]:
        """Normalized sentence embeddings. Raises ModelError if the weights cannot be loaded."""
        embeddings = self._sentences.encode(
            list(texts),
            batch_size=self.batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return embeddings.float().cpu()

    @property
    def drawingclip_towers(self) -> frozenset[Modality]:
        """See `TextComparer`: EfficientNet-Lite0 is that model's image tower, all-MiniLM-L6-v2 its text tower."""
        same: dict[Modality, bool] = {
            "image": self.image_model == EFFICIENTNET,
            "text": MINILM in self.text_model.lower().replace("_", "-"),
        }
        return frozenset(modality for modality, is_same in same.items() if is_same)

    def load(self) -> None:
        """Load both models now, to fail before long computations. Raises ModelError if weights cannot be loaded."""
        _ = self._transform, self._sentences


def paper_embedder(
    image_model: str, text_model: str, image_checkpoint: str | None = None, device: str = "cpu", batch_size: int = 32
) -> TimmSentenceEmbedder:
    """Embedder of the paper: ViT-B/16-224-in21k for images and all-MiniLM-L6-v2 for texts (Appendix A.3.1).

    Args:
        image_model: timm's name of the image model.
        text_model: Sentence Transformers' name of the text model, or a local folder.
        image_checkpoint: local state dict of the image model (safetensors or PyTorch).
        device: device to compute on.
        batch_size: samples per forward pass.

    Raises:
        ModelError: the checkpoint does not exist.
    """
    if image_checkpoint is None:
        return TimmSentenceEmbedder("paper", image_model, text_model, device=device, batch_size=batch_size)
    path = Path(image_checkpoint)
    if not path.is_file():
        raise ModelError(f"embedder.image_checkpoint={image_checkpoint} is no file: give a state dict of {image_model}")

    def identify() -> str:
        # The name says how images are resized and normalized, which differs between tags of one architecture.
        return digest({"image": [image_model, file_fingerprint(path)], "text": weights_identity(text_model)}, 16)

    return TimmSentenceEmbedder(
        "paper",
        image_model,
        text_model,
        image_weights=lambda: timm.models.load_state_dict(str(path), weights_only=True),
        identify=identify,
        device=device,
        batch_size=batch_size,
    )


def offline_embedder(device: str = "cpu", batch_size: int = 32) -> TimmSentenceEmbedder:
    """Embedder without downloads: EfficientNet-Lite0 for images and all-MiniLM-L6-v2 for texts.

    The weights come from the packages of the extra `demo`; they are the towers of DrawingCLIP without its heads, so
    that for DrawingCLIP's features this embedder is not an independent judge.

    Raises:
        ModelError: the packages are not installed.
    """
    checked_minilm_weights()
    return TimmSentenceEmbedder(
        "offline",
        EFFICIENTNET,
        str(minilm_folder()),
        image_weights=efficientnet_state_dict,
        identify=lambda: hashlib.sha256(f"{EFFICIENTNET_SHA256}|{MINILM_SHA256}".encode()).hexdigest()[:16],
        device=device,
        batch_size=batch_size,
    )
