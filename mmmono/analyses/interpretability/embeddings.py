"""Embeddings of single images and texts, by which the similarity of samples is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.artifacts import digest
from mmmono.core.errors import ConfigError
from mmmono.core.versions import version_of
from mmmono.features import MODALITIES, Modality
from mmmono.interpretability.embedders import Embedder, TimmSentenceEmbedder
from mmmono.interpretability.embedding_cache import EmbeddingCache
from mmmono.pipeline.images import SplitImages, in_batches
from mmmono.pipeline.independence import shared_towers
from mmmono.pipeline.workspace import Workspace

IMAGE_BATCH = 64  # images in memory at a time


class SampleEmbeddings:
    """Embeddings of the split's images and texts by row, from the configured embedder; each is computed once.

    Args:
        workspace: provides the pairs.
        m: number of samples that a feature is scored on.

    Attributes:
        name: name of the embedder.
        identity: name and fingerprint of the embedder, for recipes.
        independent: whether the embedder is neither the model itself nor built from the same towers.
        free: whether the embedder is the model itself, whose embeddings are in the store.
        spare: number of candidates beyond the m best, to replace samples whose images cannot be read.
    """

    def __init__(self, workspace: Workspace, m: int) -> None:
        self._workspace = workspace
        chosen = workspace.cfg.embedder
        self.free = chosen is None or "_target_" not in chosen  # embedder=clip
        if not self.free:
            workspace.dataset.check_images(workspace.dataset.split)
        self._view = workspace.features(workspace.dataset.split).view
        self._embedder: Embedder | None = None
        if self.free:
            self.name, self.identity = "clip", "clip"
        else:
            self._embedder = instantiate(chosen, device=workspace.device)
            if not self._embedder.sees_images:
                raise ConfigError(
                    f"embedder={self._embedder.name} embeds texts alone: choose embedder=offline or embedder=paper"
                )
            self.name, self.identity = self._embedder.name, f"{self._embedder.name}-{self._embedder.fingerprint}"
            self._captions = self._view.captions()
        self.independent = self._embedder is not None and not shared_towers(workspace, self._embedder)
        self.spare = 0 if self.free else max(2, m // 4)
        self._images: SplitImages | None = None
        self._position = {modality: torch.full((len(self._view),), -1) for modality in MODALITIES}
        self._table: dict[Modality, Tensor] = {}

    def load(self) -> None:
        """Load the embedder's weights. Raises ModelError if they are not available."""
        if isinstance(self._embedder, TimmSentenceEmbedder):
            self._embedder.load()

    def prepare(self, rows: dict[Modality, Int64[Tensor, " rows"]]) -> None:
        """Compute the embeddings of these rows unless they are in memory; rows of −1 are ignored."""
        for modality, needed in rows.items():
            missing = needed[needed >= 0].unique()
            missing = missing[self._position[modality][missing] < 0]
            if not len(missing):
                continue
            new = self._compute(modality, missing)
            before = self._table.get(modality)
            self._position[modality][missing] = torch.arange(len(missing)) + (0 if before is None else len(before))
            self._table[modality] = new if before is None else torch.cat([before, new])

    def had(self, rows: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """Return the prepared rows whose embeddings exist in all modalities for which they were prepared."""
        for modality, table in self._table.items():
            place = self._position[modality][rows]
            rows = rows[(place < 0) | ~table[place].isnan().any(1)]
        return rows

    def missing(self, modality: Modality) -> Int64[Tensor, " rows"]:
        """Return the prepared rows whose embeddings could not be computed."""
        place = self._position[modality]
        gone = self._table[modality].isnan().any(1)
        return torch.nonzero((place >= 0) & gone[place.clamp_min(0)]).squeeze(1)

    def report(self, directory: Path) -> None:
        """Record the missing images, if any, in the folder of the results."""
        if self._images is not None:
            self._images.report(directory)

    def of(self, modality: Modality, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Return the unit-length embeddings of prepared rows."""
        return self._table[modality][self._position[modality][rows]]

    def _compute(self, modality: Modality, rows: Tensor) -> Tensor:
        if self._embedder is None:
            return F.normalize(self._view.gather(modality, rows.numpy()).float(), dim=1)
        embedder = self._embedder
        features = self._workspace.features(self._workspace.dataset.split)
        # The cache's key determines which sample a row is, and how it is embedded.
        name = f"{self._embedder.name}-{features.store.path.name}"
        key = digest({"rows": features.recipe, "embedder": embedder.fingerprint, "version": version_of("embeddings")})
        folder = self._workspace.artifacts.root / "embeddings" / f"{name}-{key}" / modality
        if modality == "image" and self._images is None:
            self._images = SplitImages(self._workspace, self._workspace.dataset.split)

        def compute(positions: Sequence[int]) -> Tensor:
            if modality == "text":
                return embedder.embed_texts(self._captions.iloc[list(positions)].tolist())
            assert self._images is not None
            return _embedded(self._images, embedder, positions)

        samples = self._workspace.modalities.said(f"{modality}s")
        return EmbeddingCache(folder, compute, f"{self.name}: {samples}").get(rows)


def _embedded(images: SplitImages, embedder: Embedder, rows: Sequence[int]) -> Float[Tensor, "rows dim"]:
    """Embed the images of ascending rows; NaN for images that cannot be read."""
    parts: list[Tensor] = []
    there: list[bool] = []
    for batch in in_batches(images.pairs(rows), IMAGE_BATCH):
        read = [pair.image for _, pair in batch if pair is not None]
        there += [pair is not None for _, pair in batch]
        if read:
            parts.append(embedder.embed_images(read))
    if not parts:
        return torch.full((len(rows), 1), torch.nan)
    embeddings = torch.cat(parts)
    found = torch.full((len(rows), embeddings.shape[1]), torch.nan)
    found[torch.tensor(there)] = embeddings
    return found
