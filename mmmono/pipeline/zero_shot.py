"""A sample of a split's pairs, and the names of their labels as texts, for zero-shot classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.features import Modality
from mmmono.features.rows import prepare
from mmmono.pipeline.maker import check_chosen, encoder_of_pairs
from mmmono.pipeline.workspace import Workspace


def sample_of_pairs(workspace: Workspace, max_pairs: int) -> np.ndarray[Any, Any]:
    """Draw a seeded sample of at most `max_pairs` pairs; return their ascending positions in the dataset's split."""
    count = len(workspace.features(workspace.dataset.split).view)
    if count <= max_pairs:
        return np.arange(count)
    return np.sort(np.random.default_rng(workspace.seed).choice(count, max_pairs, replace=False))


def embeddings_of(workspace: Workspace, modality: Modality, rows: np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
    """Embeddings of some pairs of the dataset's split, prepared as feature sets take them, on the CPU."""
    view = workspace.features(workspace.dataset.split).view
    origin = view.origin(modality, rows)
    return prepare(view.gather(modality, rows), workspace.settings.features.normalize, "cpu", origin)


def labels_recipe(workspace: Workspace) -> dict[str, Any]:
    """Recipe entries of zero-shot classification by the dataset's labels, whose names the model embeds.

    Raises:
        ConfigError: it is known, without loading the model, that it did not make the pairs' embeddings.
    """
    label = workspace.dataset.label
    if (_labels(workspace) != "").any():
        check_chosen(workspace, *_use(workspace))
    return {"label": label, "model": workspace.model.identity if label is not None else None}


def _labels(workspace: Workspace) -> np.ndarray[Any, Any]:
    """Label of each pair of the dataset's split; empty for a pair without."""
    view, label = workspace.features(workspace.dataset.split).view, workspace.dataset.label
    if label is None or (labels := view.column(label)) is None:
        return np.full(len(view), "", dtype=object)
    return np.asarray(labels.fillna(""), dtype=object)


def _use(workspace: Workspace) -> tuple[str, str]:
    """What needs the model, and how to do without it."""
    return f"zero-shot classification (dataset.label={workspace.dataset.label})", "dataset.label=null leaves it out"


@dataclass(frozen=True)
class ClassPrompts:
    """The classes of a zero-shot classification.

    Attributes:
        embeddings: embedding of each class's prompt, prepared as those of texts.
        target: class of each pair; −1 for a pair without a label.
    """

    embeddings: Float[Tensor, "classes dim"]
    target: Int64[Tensor, " pairs"]


def class_prompts(workspace: Workspace, rows: np.ndarray[Any, Any], prompt: str) -> ClassPrompts | None:
    """Embed a prompt for each label of some pairs of the dataset's split; loads the model. None if there are no labels.

    Raises:
        ConfigError: the model did not make the pairs' embeddings; see `encoder_of_pairs`.
    """
    labels = _labels(workspace)[rows].tolist()
    names = sorted({name for name in labels if name})
    if not names:
        return None
    encoder = encoder_of_pairs(workspace, *_use(workspace))
    with torch.inference_mode():
        tokens = encoder.tokenize([prompt.format(name) for name in names])
        embeddings = prepare(
            encoder.encode_text(tokens.to(workspace.device)),
            workspace.settings.features.normalize,
            "cpu",
            "the class names' prompts",
        )
    place = {name: i for i, name in enumerate(names)}
    return ClassPrompts(embeddings, torch.tensor([place.get(name, -1) for name in labels]))
