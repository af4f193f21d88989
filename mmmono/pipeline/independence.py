"""Whether an embedder is an independent judge of the features of the model in use."""

from __future__ import annotations

from mmmono.features import Modality
from mmmono.interpretability.text_likeness import TextComparer
from mmmono.pipeline.maker import embeddings_given
from mmmono.pipeline.model import DEFAULT
from mmmono.pipeline.models import DrawingCLIP
from mmmono.pipeline.workspace import Workspace


def shared_towers(workspace: Workspace, embedder: TextComparer) -> frozenset[Modality]:
    """Modalities that the embedder embeds by a tower of the model that made the pairs: there it is no independent judge.

    Where embeddings were there before the model (`dataset=store`), their maker is known by name alone, and synthetic pairs
    have none.
    """
    model = workspace.model
    if not isinstance(model, DrawingCLIP) or workspace.dataset_name == "synthetic":
        return frozenset()
    if model.name != DEFAULT and embeddings_given(workspace):
        return frozenset()
    return embedder.drawingclip_towers
