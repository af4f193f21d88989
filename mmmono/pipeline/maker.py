"""The model as the maker of the pairs' embeddings, for analyses that compare its own embeddings with them."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from mmmono.core.errors import ConfigError, StoreError
from mmmono.pipeline.model import UNNAMED
from mmmono.pipeline.models import Unnamed
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console
from mmmono.vlm import Encoder

CAPTIONS = 16  # that are embedded again
NONE = pd.Series(dtype=str)
OTHER = 0.5  # median cosine below which another model made the embeddings; texts of unrelated models have about 0
ROUNDED = 0.95  # and from which it is the same one: half precision and other hardware change less


def encoder_of_pairs(workspace: Workspace, use: str, without: str = "") -> Encoder:
    """Load the model, after which its embeddings may be compared with those of the pairs.

    Embeddings that were there before (`dataset=store`) may be of another model, of the same width by chance. So some of
    their captions are embedded again, and compared with what is stored.

    Args:
        workspace: provides model and pairs.
        use: what needs the model, as the beginning of an error.
        without: which setting does without it, and what it gives, as the end of an error.

    Raises:
        ConfigError: another model made the embeddings, or nothing says which.
        ModelError: the model cannot be loaded.
    """
    check_chosen(workspace, use, without)
    encoder = workspace.model.load_checked(workspace.artifacts, workspace.device)
    check_maker(workspace, encoder, use, without)
    return encoder


def check_chosen(workspace: Workspace, use: str, without: str = "") -> None:
    """Check, without loading it, that the model may have made the pairs' embeddings; see `encoder_of_pairs`.

    Raises:
        ConfigError: nothing says which model made them, or the one in use has another width.
    """
    if not embeddings_given(workspace):
        return
    name, of = workspace.model.name, workspace.features(workspace.dataset.split).view.dim
    if isinstance(workspace.model, Unnamed):
        known = "nothing says which it was" if name == UNNAMED else f"all that is known of {name} is its name"
        raise _other(workspace, use, known, without)
    if workspace.model.dim not in (None, of):
        raise _other(workspace, use, f"they have {of} dimensions, those of model={name} {workspace.model.dim}", without)


def embeddings_given(workspace: Workspace) -> bool:
    """Whether the dataset is embeddings that were there before, whoever made them."""
    return workspace.dataset.feature_store(workspace.artifacts, workspace.model.name) is not None


def check_maker(workspace: Workspace, encoder: Encoder, use: str, without: str = "") -> None:
    """Check that a loaded model made the embeddings that the dataset brought along; see `encoder_of_pairs`."""
    if not embeddings_given(workspace):
        return
    view, name = workspace.features(workspace.dataset.split).view, workspace.model.name
    captions = NONE
    with suppress(StoreError):  # there are none
        captions = view.captions()
    rows = np.flatnonzero(captions.str.strip() != "")[:CAPTIONS]
    if not len(rows):
        console.print(
            f"whether model={name} made the embeddings in the store is not checked: it has no captions", style="yellow"
        )
        return
    tokens = encoder.tokenize(captions.iloc[rows].tolist())
    with torch.inference_mode():
        own = encoder.encode_text(tokens.to(workspace.device)).float().cpu()
    cosine = F.cosine_similarity(own, view.gather("text", rows).float(), dim=1).median().item()
    found = f"the median cosine between both for {len(rows)} captions is {cosine:.2f}"
    if not cosine >= OTHER:
        raise _other(workspace, use, f"model={name} embeds their captions otherwise: {found}", without)
    if cosine < ROUNDED:
        console.print(
            f"model={name} embeds captions of {workspace.title} otherwise than they are stored: {found}. Other weights, or "
            "other texts than the captions",
            style="yellow",
        )


def _other(workspace: Workspace, use: str, reason: str, without: str) -> ConfigError:
    remedy = "; ".join(filter(None, ("choose it (model=)", without)))
    return ConfigError(
        f"{use} needs the model that made the embeddings of {workspace.dataset_name}, and {reason}: {remedy}"
    )
