"""The embedder that judges generated images: independent of the model whose features are intervened on."""

from __future__ import annotations

from hydra.utils import instantiate

from mmmono.core.errors import ConfigError
from mmmono.interpretability.embedders import TimmSentenceEmbedder
from mmmono.pipeline.workspace import Workspace


def image_judge(workspace: Workspace) -> TimmSentenceEmbedder:
    """Return the chosen embedder, loaded if anything is to be computed.

    Raises:
        ConfigError: the embedder is the model itself, or sees no images.
        ModelError: its weights cannot be loaded.
    """
    chosen = workspace.cfg.embedder
    if chosen is None or "_target_" not in chosen:
        raise ConfigError(
            "embedder=clip is what is intervened on, so it cannot judge: use embedder=offline or embedder=paper"
        )
    embedder = instantiate(chosen, device=workspace.device)
    if not isinstance(embedder, TimmSentenceEmbedder):
        raise ConfigError("embedder=words sees no images, so it cannot judge: use embedder=offline or embedder=paper")
    if workspace.artifacts.builds:
        embedder.load()
    return embedder
