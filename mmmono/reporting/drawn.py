"""By which version of the code a result's figures were drawn, and what they call the modalities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.saved import read_json_object

DRAWN_FILE = "figures.json"


def note_drawn(folder: Path, versions: Mapping[str, int], modalities: ModalityNames) -> None:
    """Write down by which versions of the code figures were drawn, and what they call the modalities."""
    called = {} if modalities == IMAGE_AND_TEXT else {"modalities": [modalities.first, modalities.second]}
    write_text_atomically(folder / DRAWN_FILE, json.dumps({**versions, **called}) + "\n")


def drawn(folder: Path) -> tuple[dict[str, int] | None, ModalityNames]:
    """Return the versions of the code that drew a result's figures, and what they call the modalities.

    The versions are None if they were not written down, as for dictionaries.
    """
    file = folder / DRAWN_FILE
    if not file.exists():
        return None, IMAGE_AND_TEXT
    noted = read_json_object(file)
    called = ModalityNames.of(noted.pop("modalities", None))
    return noted or None, called
