"""Requests to attack images with: a file of the user's, or the harmless requests shipped with the package."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mmmono.core.errors import DataError

SHIPPED = "requests.csv"
COLUMNS = ("request", "concept", "image")


@dataclass(frozen=True)
class Request:
    """A request that an attack injects into an image.

    Attributes:
        text: the request as put to the model.
        concept: a few words that name its subject; by default the text.
        image: image file or key of the dataset that shows the concept; empty if there is none.
    """

    text: str
    concept: str
    image: str = ""


def read_requests(path: str | Path | None) -> list[Request]:
    """Read requests from a file; without a path, return the harmless requests shipped with the package.

    A `.csv` file has a header with `request` and, optionally, `concept` and `image`, in any case; other columns are
    ignored. Paths of images are relative to its folder. Any other file has one request per line; empty lines and lines
    that start with # are ignored.

    Raises:
        DataError: the file does not exist, is not text, contains no request or one twice, has no column `request` or two of
            one name, or a row of a table has more fields than its header.
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
    twice = next((request for place, request in enumerate(requests) if request in requests[:place]), None)
    if twice is not None:  # intervals are over requests as if each said something new
        raise DataError(f"adversarial.requests={path} has {twice.text!r} twice: give each once")
    return requests


def _lines(text: str) -> list[Request]:
    lines = (line.strip() for line in text.splitlines())
    return [Request(line, line) for line in lines if line and not line.startswith("#")]


def _rows(text: str, source: Path, folder: Path | None) -> list[Request]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    columns = [column.strip().lower() for column in reader.fieldnames or []]
    reader.fieldnames = columns
    if twice := next((name for name in COLUMNS if columns.count(name) > 1), None):
        raise DataError(f"adversarial.requests={source} has several columns called {twice!r}: rename what is not meant")
    if "request" not in columns:
        raise DataError(
            f"adversarial.requests={source} has no column 'request', only {', '.join(columns) or 'none'}: "
            f"name its columns {', '.join(COLUMNS)}"
        )
    if "picture" in columns and "image" not in columns:  # the column was called that once
        raise DataError(f"adversarial.requests={source} has a column 'picture': rename it to 'image'")
    requests = []
    for row in reader:
        more = [field for field in row.get(None) or () if field.strip()]  # spreadsheets end rows with empty ones
        if more:  # a part of the request would be taken for its concept
            raise DataError(
                f"adversarial.requests={source}, line {reader.line_num}: {len(more)} more fields than the header has "
                'columns; put a text that holds commas in quotes, "like, this"'
            )
        request, concept, image = ((row.get(column) or "").strip() for column in COLUMNS)
        if request:
            requests.append(Request(request, concept or request, _locate(image, folder)))
    return requests


def _locate(image: str, folder: Path | None) -> str:
    """Prepend the folder if it contains the file; return anything else, such as a dataset key, unchanged."""
    if image and folder is not None and (folder / image).is_file():
        return str(folder / image)
    return image
