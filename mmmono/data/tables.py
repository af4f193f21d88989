"""Reads tables of image paths and captions: CSV, JSON lines and Parquet, with columns that are named or found."""

from __future__ import annotations

import ast
import csv
import errno
import io
import json
import os
import re
import shlex
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.text import decode_text, line_of_other_encoding, message_of
from mmmono.data.captions import CaptionChoice, check_reading
from mmmono.data.images import is_svg

# Names that tools give to the columns, in order of preference.
IMAGE_COLUMNS = (
    "file_name",
    "image_path",
    "path",
    "filepath",
    "file_path",
    "filename",
    "image_file",
    "image",
    "img",
    "file",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "texts", "title", "sentence", "sentences", "comment", "description")
DELIMITED = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
UNQUOTED = "\t|"  # separators that many programs write without quoting, so that a quotation mark is one of the text
EMBEDDED = b"embedded"  # stands for the bytes of an image in a Parquet file
SUFFIXES = (*DELIMITED, *JSON_LINES, ".parquet")


@dataclass(frozen=True)
class TableReading:
    """How rows of a table become pairs.

    Attributes:
        image_column: column of images; None to find one of `IMAGE_COLUMNS`.
        caption_column: column of captions, each a text or a list of texts; None to find one of `CAPTION_COLUMNS`.
        captions: use the `first`, a `random` (always the same one) or `all` of an image's captions.
        label_keys: columns that are class labels.
        seed: of the random choice of captions.

    Raises:
        ConfigError: a label has the name of a reserved column, or `captions` is unknown.
    """

    image_column: str | None = None
    caption_column: str | None = None
    captions: CaptionChoice = "first"
    label_keys: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_reading(self.captions, self.label_keys)
        object.__setattr__(self, "label_keys", tuple(self.label_keys))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What changes pairs, for fingerprints."""
        seed = self.seed if self.captions == "random" else 0
        return self.image_column, self.caption_column, self.captions, self.label_keys, seed

    def columns(
        self,
        there: Sequence[str],
        what: str,
        images: Sequence[str] = IMAGE_COLUMNS,
        captions: Sequence[str] = CAPTION_COLUMNS,
    ) -> tuple[str, str]:
        """Return the columns of images and captions.

        Args:
            there: the table's columns.
            what: its name in errors.
            images, captions: known names of the columns, in order of preference.

        Raises:
            ConfigError: a column is not there, or none is found.
        """
        for name in self.label_keys:
            if name not in there:
                raise ConfigError(f"dataset.label_keys: {what} has no column {name!r}: it has {_listed(there)}")
        image = _column("image_column", self.image_column, images, there, what)
        return image, _column("caption_column", self.caption_column, captions, there, what)


def check_table(file: Path) -> None:
    """Raise DataError unless there is a file with the name of a table; see `read_table`."""
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file} is no table that is read here: {', '.join(SUFFIXES)}")
    if not file.exists():
        raise DataError(f"{file} cannot be read ({os.strerror(errno.ENOENT)})")


def read_table(file: Path) -> dict[str, list[Any]]:
    """Return a table's columns by name. Bytes that are no text, such as images, are not read: their values are `EMBEDDED`.

    Args:
        file: `.csv`, `.tsv`, `.txt` (delimited by comma, tab, semicolon or |), `.jsonl`, `.ndjson` or `.parquet`.

    Raises:
        DataError: it is not there, of another type, or broken, or two columns have one name; the message names the line.
    """
    check_table(file)
    suffix = file.suffix.lower()
    try:
        if suffix == ".parquet":
            return _parquet(file)
        data = file.read_bytes()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{file} cannot be read ({reason or message_of(error)})") from error
    if (found := line_of_other_encoding(data)) is not None:
        utf8 = str(file.with_name(f"utf8-{file.name}"))
        raise DataError(
            f"{file}, line {found[0]} ({found[1]}) is not UTF-8, and accents would be lost: save the table as UTF-8, for "
            f"example by 'iconv -f CP1252 -t UTF-8 {shlex.quote(str(file))} > {shlex.quote(utf8)}'"
        )
    text = decode_text(data)
    return _json_lines(file, text) if suffix in JSON_LINES else _delimited(file, text)


def texts_in(value: object) -> list[object]:
    """Return the captions in a table's value: several where it is the text of a list, as JSON, Python or NumPy writes it."""
    if isinstance(value, str) and value[:1] == "[" and value[-1:] == "]":
        for read in (json.loads, _literal):
            try:
                found = read(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list) and any(isinstance(one, str) for one in found):
                return found
    return [value]


def _literal(text: str) -> Any:
    """Value of a Python literal. NumPy writes no commas, and Python would join its texts: `['a cat' 'a dog']`."""
    if re.search(r"""['"]\s+['"]""", text):
        ends = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
        try:
            tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in ends]
        except tokenize.TokenError as error:
            raise ValueError(str(error)) from error
        words = [tokens[0].string]
        for before, token in pairwise(tokens):
            words += [",", token.string] if before.type == token.type == tokenize.STRING else [token.string]
        text = " ".join(words)
    return ast.literal_eval(text)


def _parquet(file: Path) -> dict[str, list[Any]]:
    # Mapped, or a column of images would be read whole to look at its first values.
    with pq.ParquetFile(file, memory_map=True) as opened:
        _check_names(file, opened.schema_arrow.names)
        binary = {field.name for field in opened.schema_arrow if _holds_bytes(field.type)}
        texts = {name for name in binary if not pa.types.is_struct(opened.schema_arrow.field(name).type)}
        texts = {name for name in texts if _is_text(opened, name)}
        table = opened.read([name for name in opened.schema_arrow.names if name not in binary - texts])
        found = {name: table.column(place).to_pylist() for place, name in enumerate(table.column_names)}
        for name in texts:
            found[name] = [None if value is None else decode_text(value) for value in found[name]]
        rows = opened.metadata.num_rows
        return {name: found.get(name, [EMBEDDED] * rows) for name in opened.schema_arrow.names}


def _check_names(file: Path, names: Sequence[str]) -> None:
    """Raise DataError if two columns have one name; those without a name, as of a row's number, are not asked for."""
    if twice := next((name for name, count in Counter(names).items() if name and count > 1), None):
        raise DataError(f"{file} has several columns called {twice!r}: rename those that are not meant")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):  # several images in a row
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(opened: pq.ParquetFile, name: str) -> bool:
    """Whether the first bytes in a column are UTF-8, as of programs that do not mark their strings as such; no drawings."""
    for batch in opened.iter_batches(16, columns=[name]):
        values = [value for value in batch.column(0).to_pylist() if value is not None]
        if values:
            return all(isinstance(value, bytes) and _is_utf8(value) and not is_svg(value) for value in values)
    return False


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimited(file: Path, text: str) -> dict[str, list[Any]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",\t|;", key=header.count)
    try:
        names, values = _rows(file, text, delimiter, quoted=True)
    except DataError:
        if '"' not in text:
            raise
        try:
            names, values = _rows(file, _without_trailing_space(text, delimiter), delimiter, quoted=True)
        except DataError:
            if delimiter not in UNQUOTED:
                raise
            names, values = _rows(file, text, delimiter, quoted=False)
    return {name: [row[place] for row in values] for place, name in enumerate(names)}


def _without_trailing_space(text: str, delimiter: str) -> str:
    """Remove white space between a quoted value and what ends it, which `csv` takes only in front of a value."""
    ends = re.escape(delimiter) + r"\r\n"
    value = re.compile(rf'( *"(?:[^"]|"")*")(?:(?![{ends}])\s)*(?=[{ends}]|\Z)|[^{ends}]+')
    return value.sub(lambda match: match[1] or match[0], text)


def _rows(file: Path, text: str, delimiter: str, quoted: bool) -> tuple[list[str], list[list[str]]]:
    """Return the names in the first line and the values of all others.

    Args:
        file: the table, for errors.
        text: its content.
        delimiter: between values.
        quoted: whether a value that begins with a quotation mark ends at the next one, which nothing else may follow: a mark
            without its counterpart would otherwise take the lines after it into one value.
    """
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    names: list[str] = []
    values: list[list[str]] = []
    limit = csv.field_size_limit(max(len(text), 1))  # by default a value has at most 131,072 characters
    try:
        names = [name.strip() for name in next(rows, [])]
        _check_names(file, names)
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{file}, line {rows.line_num}: {len(row)} values where the first line names {len(names)} columns: "
                    f"quote texts that contain {delimiter!r}"
                )
            values.append([value.strip() for value in row])
    except csv.Error as error:
        raise DataError(
            f"{file}, line {rows.line_num}: {error}: a text with a quotation mark is quoted, and the mark doubled"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return names, values


def _json_lines(file: Path, text: str) -> dict[str, list[Any]]:
    records: list[Mapping[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: no JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f'{file}, line {number}: no JSON object, such as {{"file_name": …, "text": …}}')
        records.append(record)
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


def _column(setting: str, given: str | None, known: Sequence[str], there: Sequence[str], what: str) -> str:
    if given is not None:
        if given not in there:
            raise ConfigError(f"dataset.{setting}={given}: {what} has no such column: it has {_listed(there)}")
        return given
    if (found := next((name for name in known if name in there), None)) is None:
        raise ConfigError(
            f"{what} has none of the columns {', '.join(known)}: name the one that is meant with dataset.{setting}=; it has "
            f"{_listed(there)}"
        )
    return found


def _listed(names: Sequence[str], most: int = 12) -> str:
    return (", ".join(names[:most]) + (", …" if len(names) > most else "")) or "no columns"
