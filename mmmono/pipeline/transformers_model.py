"""`model=transformers`: a two-tower model of transformers, from the hub or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import ModelError
from mmmono.core.files import user_path
from mmmono.pipeline.downloads import Download
from mmmono.pipeline.model_names import as_name, last_part
from mmmono.pipeline.models import Layered
from mmmono.vlm import Encoder
from mmmono.vlm.depth import cut

if TYPE_CHECKING:
    from mmmono.vlm.transformers_sources import TransformersSource

# What takes transformers is imported where it is used: most commands build no model.


@dataclass(kw_only=True, frozen=True)
class Transformers(Layered):
    """CLIP, SigLIP, SigLIP 2, AIMv2 or ALIGN as transformers has them, with their own processors.

    Attributes:
        id: `organisation/name` or `organisation/name@revision` on the hub, or a folder as `save_pretrained` writes it.
        context_length: tokens per caption; None for the model's own.
        layer, projected: see `Layered`.
    """

    id: str
    context_length: int | None = None

    def __post_init__(self) -> None:
        _ = self.depth  # checks its settings
        object.__setattr__(self, "name", as_name(last_part(self.id) if self.name == self.id else self.name))

    def recipe(self) -> dict[str, Any]:
        """Digests of the whole weights, of the configuration and of the processor, and the settings."""
        source = self._source
        self.depth.check(*source.blocks)
        length = source.context_length(self.context_length)
        return {**source.recipe(), "context_length": length, **self.depth.recipe()}

    @property
    def dim(self) -> int | None:
        """Dimension in the configuration; None if the configuration is not available."""
        try:
            return self._source.dim if self.projected else self._source.text_width
        except ModelError:
            return None

    @property
    def text_width(self) -> int:
        """Dimension of the text tower's tokens."""
        return self._source.text_width

    @property
    def image_width(self) -> int | None:
        """Dimension of the image tower's tokens; None for ALIGN, whose tower is convolutional."""
        return getattr(self._source.config.vision_config, "hidden_size", None)

    def load(self, artifacts: Artifacts, device: str) -> Encoder:
        """Load the encoder through transformers; from the hub at the commit that the recipe is of."""
        from mmmono.vlm import load_transformers
        from mmmono.vlm.transformers_sources import transformers_source

        source = self._source
        if (at := source.repository) is not None:  # the source may come from another machine, with its folders
            source = transformers_source(f"{at.name}@{at.commit}")
        encoder = load_transformers(self.id, self.name, self.context_length, source)
        cut(encoder, self.depth)
        return encoder.to(device)

    def downloads(self) -> Iterator[Download]:
        """Yield the weights and the processor's files, unless the model lies in a folder."""
        if not user_path(self.id).is_dir():
            weights = ("model*.safetensors", "*.json", "*.txt", "*.model")
            yield Download(f"weights of {self.name}", self.id.partition("@")[0], files=weights)

    @cached_property
    def _source(self) -> TransformersSource:
        from mmmono.vlm.transformers_sources import transformers_source

        return transformers_source(self.id)
