"""The model card of a dictionary: what it is, what it was trained on, how good it is, and how to read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.dictionaries import Dictionary
from mmmono.reporting.result import Rows

UNTOLD = ("features", "validation", "version")  # parts of a recipe that are addresses on one machine


@dataclass(frozen=True)
class Origin:
    """Where a dictionary comes from.

    Attributes:
        model: name of the model whose embeddings it encodes; None if nothing says which, or if there is none.
        dataset: name of the dataset.
        pairs, groups: image-text pairs that it was fitted on, and groups of them that are not independent.
        versions: of the software, by package.
        recipe: settings that determine it.
        modalities: what the two sides of a pair are called.
    """

    model: str | None
    dataset: str
    pairs: int
    groups: int
    versions: dict[str, str]
    recipe: dict[str, Any]
    modalities: ModalityNames = IMAGE_AND_TEXT


def model_card(
    dictionary: Dictionary, origin: Origin, metrics: Rows, path: str, license: str | None, saelens: bool
) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        dictionary: the dictionary.
        origin: where it comes from.
        metrics: `metric` and `value` at the last validation; empty if it was not trained by gradient descent.
        path: what reads it: an id on the hub, or a folder.
        license: the hub's name of a licence; None leaves it out.
        saelens: whether the folder holds it as SAELens saves it, too.
    """
    called = origin.modalities
    of, by = (f" of {origin.model}", f" by `{origin.model}`") if origin.model else ("", "")
    tags = ["sparse-autoencoder", "interpretability", "multimodal", dictionary.architecture]
    data = ModelCardData(library_name="mmmono", license=license, tags=tags)
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {dictionary.architecture} on embeddings{of}",
        f"{dictionary.num_features:,} features of {called.first} and {called.second} embeddings of width {dictionary.dim}"
        f"{by}, fitted on {origin.pairs:,} {called.pair} pairs ({origin.groups:,} groups) of "
        f"`{origin.dataset}`. "
        f"Embeddings {'were' if origin.recipe.get('normalize') else 'were not'} normalized to length 1 first.",
        "## Use",
        f"```sh\npython experiments/mds.py features=pretrained dictionary.path={path} model=… dataset=…\n```",
        "```python\nfrom mmmono.dictionaries.readers.reading import load_dictionary\n\n"
        f'dictionary = load_dictionary("{path}")\ncodes = dictionary.encode(embeddings, "image")  # {_sides(called)}\n```',
    ]
    if saelens:
        parts.append("The folder `saelens` holds the same dictionary for SAELens' `SAE.load_from_disk`.")
    if metrics:
        lines = [f"| {row['metric']} | {_number(row['value'])} |" for row in metrics]
        parts += ["## At the last validation", "\n".join(["| metric | value |", "|---|---|", *lines])]
    told = {key: value for key, value in origin.recipe.items() if key not in UNTOLD}
    parts += ["## Settings", f"```json\n{json.dumps({**told, 'software': origin.versions}, indent=2)}\n```"]
    return "\n\n".join(parts) + "\n"


def _sides(called: ModalityNames) -> str:
    """What a line of code with "image" says of the other side."""
    return 'or "text"' if called == IMAGE_AND_TEXT else f'{called.first}; "text" for {called.second}'


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
