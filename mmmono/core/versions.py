"""The version of each kind of artifact: part of its address, raised here whenever the numbers it holds would change.

A fix that changes what a kind of artifact contains raises its number. What was made before then has another address: it
stays on disk, is found by nobody, and is made anew. Whatever is derived from it follows, since recipes hold the
addresses of what they were made from.

Keys are a folder under the root, or a folder and the first part of the artifact's name, such as `results/mds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "version"  # of the entry in a recipe

# How Eq. 1 is evaluated and features are sorted by it: part of the recipe of every analysis that does so.
PARTITION = 1

VERSIONS: Mapping[str, int] = {
    "features": 1,
    "features/planted": 1,
    "embeddings": 1,  # of embedders, for EmbSim and WinRate
    "labels": 1,  # of image classifiers
    "models/emojiclip": 1,
    "models/embedding_decoder": 1,
    "dictionaries/sae": 1,
    "dictionaries/ncl": 1,
    "dictionaries/pca": 1,
    "dictionaries/ica": 2,
    "dictionaries/random_rotation": 1,
    "dictionaries/untrained_sae": 1,
    "results/ablation": 1,
    "results/adversarial": 1,
    "results/certainty": 2,
    "results/explorer": 1,
    "results/faithfulness": 2,
    "results/gender": 1,
    "results/interpretability": 2,
    "results/mds": 1,
    "results/report": 1,
    "results/sweep": 1,
    "results/text_to_image": 1,
    "results/top_samples": 1,
    "results/validation": 1,
}


def version_of(kind: str, name: str = "") -> int:
    """The current version of a kind of artifact: that of the folder and the name's first part, or of the folder, or 1."""
    return VERSIONS.get(f"{kind}/{name.partition('-')[0]}", VERSIONS.get(kind, 1))


def versioned(kind: str, name: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the version that its artifact has now."""
    return {**recipe, KEY: version_of(kind, name)}


def is_current(kind: str, name: str, recipe: Mapping[str, Any]) -> bool:
    """Whether the artifact that this recipe made is still what would be made today."""
    return recipe.get(KEY) == version_of(kind, name)
