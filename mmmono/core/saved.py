"""Reads the small files of an artifact: one that was cut off or overwritten is named, with what makes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmono.core.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RECIPE_FILE = "recipe.json"  # what an artifact was made from; written last
LEVELS = 3  # folders in which a file of an artifact lies, at most


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        StoreError: it is no whole JSON.
        FileNotFoundError: it is missing.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken(file, "JSON file", error) from error


def read_json_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises as `read_json` does, also for what is no object."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise broken(file, "JSON object", f"it holds a {type(content).__name__}")
    return content


def read_frame(file: Path, **options: Any) -> pd.DataFrame:
    """Return a table that was saved as Parquet; `options` are those of `pandas.read_parquet`.

    Raises:
        StoreError: it is no whole Parquet file, or lacks a column.
        FileNotFoundError: it is missing.
    """
    import pandas as pd  # here, so that --help needs no pandas
    import pyarrow as pa

    try:
        return pd.read_parquet(file, **options)
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(file, "Parquet file", error) from error


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a table that was saved as Parquet, missing values as None; raises as `read_frame` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise broken(file, "Parquet file", error) from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises StoreError if it is not whole, FileNotFoundError if missing."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (FileNotFoundError, PermissionError):
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise broken(file, "safetensors file", error) from error


def broken(file: Path, kind: str, reason: object) -> StoreError:
    """Return the error for a file of an artifact that is not what it should be."""
    if isinstance(reason, FileNotFoundError) and not file.exists():
        return StoreError(f"{file} is missing: {made_anew(file, 'it has to be made anew', reason)}")
    why = " ".join(str(reason).replace(str(file), "it").split())[:120]
    what = "cannot be read" if _of_system(file, reason) else f"is no whole {kind}"
    return StoreError(f"{file} {what} ({why}): {made_anew(file, 'it has to be made anew', reason)}")


def made_anew(file: object, otherwise: str, reason: object = None) -> str:
    """Return what to do about a file that cannot be read: if it belongs to an artifact, to remove that; else `otherwise`.

    Args:
        file: its path.
        otherwise: what to do about one that belongs to no artifact.
        reason: the error. If the system could not read it, as of a disk that is away, its content may well be whole: then
            nothing is to be removed.
    """
    for folder in Path(str(file)).parents[:LEVELS]:
        if (folder / RECIPE_FILE).exists():
            first = "mend what the system reports" if _of_system(file, reason) else f"remove the folder {folder}"
            return f"{first}, and run the same command again"
    return otherwise


def _of_system(file: object, reason: object) -> bool:
    """Whether an error is the system's, such as too many open files, and the file is there.

    Errors of broken content have no number. Those of safetensors have none either, but are of a kind of their own: it says
    that a file is missing whatever keeps it from being opened.
    """
    if not isinstance(reason, OSError) or (reason.errno is None and type(reason) is OSError):
        return False
    return not isinstance(reason, FileNotFoundError) or Path(str(file)).exists()
