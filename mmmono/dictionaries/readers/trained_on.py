"""What the files of a dictionary say of the embeddings that it was trained on."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import saelens
from mmmono.dictionaries.base import read_config
from mmmono.dictionaries.readers import dictionary_learning

TRAINED_ON_FILE = "embeddings.json"  # beside a dictionary that this project trains or publishes


@dataclass(frozen=True)
class TrainedOn:
    """The embeddings that a dictionary was trained on, as far as its files tell; None is what they do not.

    Attributes:
        model: the model that made them, as whoever trained the dictionary called it.
        fingerprint: of the model's architecture and weights, as in the manifests of this project's stores.
        place: where in the model they were taken from, such as SAELens' `hook_name`.
        normalize: whether they were normalized to length 1 first.
    """

    model: str | None = None
    fingerprint: str | None = None
    place: str | None = None
    normalize: bool | None = None

    def write(self, folder: Path) -> None:
        """Write it beside a dictionary."""
        told = {name: value for name, value in asdict(self).items() if value is not None}
        write_text_atomically(folder / TRAINED_ON_FILE, json.dumps(told, indent=2) + "\n")


def read_trained_on(found: Path) -> TrainedOn:
    """Return what the configurations of a dictionary tell.

    Args:
        found: the folder or file that it is read from.

    Raises:
        DictionaryError: a configuration that belongs to it is broken.
    """
    folder = found if found.is_dir() else found.parent
    if (folder / TRAINED_ON_FILE).is_file():
        return _of_this_project(read_config(folder / TRAINED_ON_FILE))
    if (folder / saelens.WEIGHTS_FILE).is_file():
        return _of_saelens(read_config(folder / saelens.CONFIG_FILE))
    with suppress(DictionaryError):  # a config.json that nobody needed to read it
        trainer = dictionary_learning.trainer_of(folder / dictionary_learning.WEIGHTS_FILE)
        return TrainedOn(_text(trainer, "lm_name"), place=_text(trainer, "submodule_name"))
    return TrainedOn()


def _of_this_project(told: dict[str, Any]) -> TrainedOn:
    model, fingerprint, place = (_text(told, name) for name in ("model", "fingerprint", "place"))
    normalize = told.get("normalize")
    return TrainedOn(model, fingerprint, place, normalize if isinstance(normalize, bool) else None)


def _of_saelens(config: dict[str, Any]) -> TrainedOn:
    """Version 6 keeps these fields in `metadata`, earlier ones beside the others."""
    metadata = config.get("metadata")
    told = [metadata if isinstance(metadata, dict) else {}, config]
    model, hook, point = (
        next(filter(None, (_text(part, name) for part in told)), None)
        for name in ("model_name", "hook_name", "hook_point")
    )
    return TrainedOn(model, place=hook or point)


def _text(told: dict[str, Any], name: str) -> str | None:
    """A field that holds some text; None if it does not."""
    value = told.get(name)
    return value if isinstance(value, str) and value else None
