"""The requests that pictures are attacked with: a file of the user's own, or the harmless ones that are shipped."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mmmono.core.errors import DataError

SHIPPED = "requests.csv"
COLUMNS = ("request", "concept", "picture")


@dataclass(frozen=True)
class Request:
    """What an attacked picture is to be mistaken for.

    Attributes:
        text: what the model is asked.
        concept: a few words that name it; the text itself where the file has none.
        picture: image file or key of the dataset that shows the concept; empty where the file has none.
    """

    text: str
    concept: str
    picture: str = ""


def read_requests(path: str | Path | None) -> list[Request]:
    """Requests of a file; without one the harmless requests that stand in for them here.

    A `.csv` has a heading with `request` and, if wanted, `concept` and `picture`; relative paths of pictures start at
    the file's folder. Any other file has a request a line; empty lines and those that begin with # are left out.

    Raises:
        DataError: there is no such file, it is not text, holds no request, or has no column `request`.
    """
    if path is None:
        text, source, folder = (files(__package__) / SHIPPED).read_text(encoding="utf-8"), Path(SHIPPED), None
    else:
        source = Path(path)
        folder = source.parent
        try:
            text = source.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise DataError(
                f"adversarial.requests={path} is not there: give your own file, a request a line"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"adversarial.requests={path} is no readable text file ({error})") from error
    requests = _rows(text, source, folder) if source.suffix.lower() == ".csv" else _lines(text)
    if not requests:
        raise DataError(f"adversarial.requests={path} holds no request: write one a line")
    return requests


def _lines(text: str) -> list[Request]:
    lines = (line.strip() for line in text.splitlines())
    return [Request(line, line) for line in lines if line and not line.startswith("#")]


def _rows(text: str, source: Path, folder: Path | None) -> list[Request]:
    reader = csv.DictReader(text.splitlines())
    columns = list(reader.fieldnames or [])
    if "request" not in columns:
        raise DataError(
            f"adversarial.requests={source} has no column 'request', only {', '.join(columns) or 'none'}: "
            f"name its columns {', '.join(COLUMNS)}"
        )
    requests = []
    for row in reader:
        request, concept, picture = ((row.get(column) or "").strip() for column in COLUMNS)
        if request:
            requests.append(Request(request, concept or request, _locate(picture, folder)))
    return requests


def _locate(picture: str, folder: Path | None) -> str:
    """A file beside the list by its path; anything else, such as a key of the dataset, as it is."""
    if picture and folder is not None and (folder / picture).is_file():
        return str(folder / picture)
    return picture
