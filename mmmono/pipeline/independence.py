"""Whether an embedder is an independent judge of the features of the model in use."""

from __future__ import annotations

from mmmono.features import Modality
from mmmono.interpretability.text_likeness import TextComparer
from mmmono.pipeline.model import DEFAULT
from mmmono.pipeline.models import DrawingCLIP, Unnamed
from mmmono.pipeline.workspace import Workspace


def shared_towers(workspace: Workspace, embedder: TextComparer) -> frozenset[Modality]:
    """Modalities that the embedder embeds by a tower of the model that made the pairs: there it is no independent judge.

    Of embeddings that were there before (`dataset=store`), the name of their maker may be all that is known; synthetic pairs
    have none.
    """
    model = workspace.model
    by_name = isinstance(model, Unnamed) and model.name == DEFAULT
    if not (isinstance(model, DrawingCLIP) or by_name) or workspace.dataset_name == "synthetic":
        return frozenset()
    return embedder.drawingclip_towers
