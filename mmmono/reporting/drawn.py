"""By which version of the code a result's figures were drawn, and what they call the modalities."""

from __future__ import annotations

import json
from pathlib import Path

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames

DRAWN_FILE = "figures.json"


def note_drawn(folder: Path, version: int, modalities: ModalityNames) -> None:
    """Write down by which version of the code figures were drawn, and what they call the modalities."""
    called = {} if modalities == IMAGE_AND_TEXT else {"modalities": [modalities.first, modalities.second]}
    write_text_atomically(folder / DRAWN_FILE, json.dumps({"version": version, **called}) + "\n")


def drawn(folder: Path) -> tuple[int | None, ModalityNames]:
    """Return the version of the code that drew a result's figures, and what they call the modalities.

    The version is None if it was not written down, as for dictionaries.
    """
    file = folder / DRAWN_FILE
    noted = json.loads(file.read_text()) if file.exists() else {}
    return noted.get("version"), ModalityNames.of(noted.get("modalities"))
