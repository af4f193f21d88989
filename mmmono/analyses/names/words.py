"""The vocabulary that names are taken from, and where its words lie among images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from scipy.sparse import csr_array
from torch import Tensor

from mmmono.analyses.names import Settings
from mmmono.core.artifacts import digest
from mmmono.core.errors import ConfigError, DataError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint
from mmmono.core.saved import read_tensors
from mmmono.features import MODALITIES, Modality
from mmmono.features.rows import prepare
from mmmono.features.selection import CAPTION_WANTED
from mmmono.interpretability.naming import mean_directions
from mmmono.interpretability.vocabulary import caption_vocabulary, mentions, read_vocabulary
from mmmono.pipeline.held_out import PairSample
from mmmono.pipeline.maker import check_chosen, embeddings_given, encoder_of_pairs
from mmmono.pipeline.workspace import Workspace

BATCH = 256  # words in a forward pass
FILE = "words.safetensors"
WITH_MODEL = (
    "names.embeddings=model",
    "names.embeddings=captions does without it",
)  # what needs the model, what does not

Array = np.ndarray[Any, Any]
Directions = dict[Modality, Float[Tensor, "words dim"]]


def embeds_by_model(workspace: Workspace, settings: Settings) -> bool:
    """Whether the model's text tower embeds the words. Raises ConfigError if it cannot."""
    if settings.embeddings == "model" and workspace.dataset_name == "synthetic":
        raise ConfigError("names.embeddings=model: no model made synthetic pairs; set names.embeddings=captions")
    return not embeddings_given(workspace) if settings.embeddings == "auto" else settings.embeddings == "model"


def words_recipe(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Everything that determines vocabulary and directions beside the settings and the pairs.

    Raises:
        ConfigError: the vocabulary's file is none, or holds no words; or the model has another width than the pairs.
    """
    by_model = embeds_by_model(workspace, settings)
    if by_model:
        check_chosen(workspace, *WITH_MODEL)
    file = None if settings.vocabulary == "captions" else user_path(settings.vocabulary)
    if file is not None:
        read_vocabulary(file)
    return {
        "vocabulary": None if file is None else file_fingerprint(file),
        "words": workspace.model.identity if by_model else "captions",
    }


def _check_width(of_words: int, of_pairs: int) -> None:
    """Raise ConfigError unless words and pairs lie in one space."""
    if of_words != of_pairs:
        raise ConfigError(
            f"the model's texts have {of_words} dimensions, the pairs {of_pairs}: choose their model, or "
            "names.embeddings=captions"
        )


def caption_column(modality: Modality, settings: Settings) -> str:
    """Column of the metadata that says what the samples of a modality are."""
    return settings.image_text if modality == "image" else "caption"


def check_columns(metadata: pd.DataFrame, settings: Settings) -> None:
    """Raise an error unless the metadata says what images and texts are.

    Raises:
        ConfigError: `names.image_text` is no column.
        DataError: there are no captions.
    """
    if "caption" not in metadata:
        raise DataError(f"the pairs have no captions, by which names are chosen and tested: {CAPTION_WANTED}")
    if settings.image_text not in metadata:
        raise ConfigError(
            f"names.image_text={settings.image_text} is no column of the pairs: {', '.join(metadata.columns)} are"
        )


def vocabulary_of(pairs: PairSample, settings: Settings) -> list[str]:
    """Words and phrases that may be names. Raises ConfigError if there are none."""
    if settings.vocabulary != "captions":
        return read_vocabulary(user_path(settings.vocabulary))
    columns = dict.fromkeys(caption_column(modality, settings) for modality in MODALITIES)
    captions = [caption for column in columns for caption in pairs.metadata[column]]
    words = caption_vocabulary(
        captions,
        np.tile(pairs.groups, len(columns)),
        longest=settings.phrase,
        min_groups=settings.min_groups,
        max_share=settings.max_share,
        size=settings.size,
    )
    if not words:
        raise ConfigError(
            f"no word is in the captions of at least names.min_groups={settings.min_groups} groups and at most "
            f"names.max_share={settings.max_share} of them: lower the one or raise the other"
        )
    return words


def word_directions(
    workspace: Workspace,
    pairs: PairSample,
    embeddings: dict[Modality, Float[Tensor, "pairs dim"]],
    words: Sequence[str],
    settings: Settings,
) -> Directions:
    """Direction of every word among images and among texts; 0 where there is none.

    By the model, it is the word's embedding minus the mean of all words' on either side. By captions, it is from the mean of
    a modality to the mean of those whose caption has the word, if those of at least
    `names.min_groups` groups do.

    Args:
        workspace: provides the model.
        pairs: whose captions are read.
        embeddings: of these pairs.
        words: the vocabulary.
        settings: where words lie.

    Raises:
        ConfigError: the model's embeddings have another width than the pairs'.
    """
    if embeds_by_model(workspace, settings):
        embedded = _by_model(workspace, words)
        _check_width(embedded.shape[1], embeddings["text"].shape[1])
        centered = embedded - embedded.mean(0)
        return dict.fromkeys(MODALITIES, centered)
    found: Directions = {}
    for modality in MODALITIES:
        holds = mentions(pairs.metadata[caption_column(modality, settings)].tolist(), words)
        rare = torch.from_numpy(_groups_with(holds, pairs.groups) < settings.min_groups)
        found[modality] = mean_directions(holds, embeddings[modality]).masked_fill(rare[:, None], 0)
    return found


def _groups_with(holds: csr_array, groups: Int[Array, " pairs"]) -> Int[Array, " words"]:
    """Number of groups that have a pair with each word."""
    ones = np.ones(len(groups), np.float32)
    of_group = csr_array((ones, (groups, np.arange(len(groups)))), shape=(int(groups.max()) + 1, len(groups)))
    return np.asarray((of_group @ holds > 0).sum(0)).reshape(-1)


def _by_model(workspace: Workspace, words: Sequence[str]) -> Float[Tensor, "words dim"]:
    """Embed words by the model's text tower; they are kept as an artifact."""
    recipe = {"model": workspace.model.identity, "words": digest({"words": list(words)})}
    if embeddings_given(workspace):  # checked though the words are kept, perhaps for other pairs
        encoder_of_pairs(workspace, *WITH_MODEL)

    def make(folder: Path) -> None:
        encoder = workspace.model.load_checked(workspace.artifacts, workspace.device)
        with torch.inference_mode():
            parts = [
                encoder.encode_text(encoder.tokenize(list(words[start : start + BATCH])).to(workspace.device))
                .float()
                .cpu()
                for start in range(0, len(words), BATCH)
            ]
        save_file({"words": torch.cat(parts).contiguous()}, folder / FILE)

    artifact = workspace.artifacts.build("words", workspace.model.name, recipe, make)
    return prepare(read_tensors(artifact.path / FILE)["words"], True, "cpu", str(artifact.path))
