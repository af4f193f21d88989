"""Version of each kind of artifact: part of its address, to be raised whenever a code change changes its numbers.

Raising a version gives new artifacts another address: those of earlier versions stay on disk but are no longer found,
and are built anew. Artifacts derived from them follow, since recipes contain the addresses of their inputs.

Keys are a folder under the root, or a folder and the first part of the artifact's name, such as `models/drawingclip`.
Results of analyses are not listed: the recipe of each holds the version that its analysis declares
(mmmono/pipeline/analysis.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "version"  # key of the version in a recipe

FIGURES = 3  # look that all figures share; raised when it changes, and all are drawn anew from their tables

VERSIONS: Mapping[str, int] = {
    "features": 1,
    "features/synthetic": 1,
    "embeddings": 1,  # from text and image embedders, for EmbSim and WinRate
    "labels": 1,  # from image classifiers
    "towers": 3,  # outputs of the default model's towers, before its heads
    "words": 1,  # embeddings of a vocabulary by a model's text tower
    "models/drawingclip": 3,
    "models/embedding_decoder": 2,
    "dictionaries/sae": 1,
    "dictionaries/ncl": 1,
    "dictionaries/batch_topk": 1,
    "dictionaries/matryoshka": 1,
    "dictionaries/jumprelu": 1,
    "dictionaries/gated": 1,
    "dictionaries/l1": 1,
    "dictionaries/matching_pursuit": 1,
    "dictionaries/tied": 1,
    "dictionaries/frozen_decoder": 1,
    "dictionaries/frozen_encoder": 1,
    "dictionaries/sparc": 1,
    "dictionaries/group_sparse": 1,
    "dictionaries/iso_energy": 1,
    "dictionaries/infonce": 1,
    "dictionaries/matched_saes": 2,
    "dictionaries/pretrained": 2,
    "dictionaries/raw": 1,
    "dictionaries/raw_centered": 1,
    "dictionaries/rotation_centered": 1,
    "dictionaries/pca": 1,
    "dictionaries/ica": 2,
    "dictionaries/random_rotation": 1,
    "dictionaries/untrained_sae": 1,
    "partitions": 4,  # scores by Eq. 1 and the classes by them
    "sharedness": 5,
    "results/explorer": 10,
    "results/report": 1,
}


def version_of(kind: str, name: str = "") -> int:
    """Return the current version of `kind/<first part of name>`, else of `kind`, else 1."""
    return VERSIONS.get(f"{kind}/{name.partition('-')[0]}", VERSIONS.get(kind, 1))


def versioned(kind: str, name: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the current version of its artifact added, unless it holds one."""
    return {KEY: version_of(kind, name), **recipe}


def is_current(kind: str, name: str, recipe: Mapping[str, Any]) -> bool:
    """Whether an artifact with this recipe has the current version; not checked for results of analyses."""
    if kind == "results" and f"{kind}/{name.partition('-')[0]}" not in VERSIONS:
        return KEY in recipe
    return recipe.get(KEY) == version_of(kind, name)
