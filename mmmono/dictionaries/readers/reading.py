"""Read a dictionary that this project or another library saved, from disk or from the hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from mmmono.core.errors import DictionaryError, ModelError
from mmmono.dictionaries import saelens
from mmmono.dictionaries.base import CONFIG_FILE, WEIGHTS_FILE, Dictionary, read_weights
from mmmono.dictionaries.foreign_files import Hints, read_torch_file, tensors_of
from mmmono.dictionaries.readers import dictionary_learning, overcomplete, sparsify
from mmmono.dictionaries.readers.dictionary_learning import read_dictionary_learning
from mmmono.dictionaries.readers.msae import is_msae, read_msae
from mmmono.dictionaries.readers.overcomplete import read_overcomplete
from mmmono.dictionaries.readers.sparsify import read_sparsify
from mmmono.vlm.hub import download, hub_or_cache

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
TORCH_FILES = (".pt", ".pth")
TENSOR_FILES = (*TORCH_FILES, ".safetensors")
# Files of a folder by which it is known: configuration and weights of each library.
FOLDERS = (
    (CONFIG_FILE, WEIGHTS_FILE),
    (saelens.CONFIG_FILE, saelens.WEIGHTS_FILE),
    (sparsify.CONFIG_FILE, sparsify.WEIGHTS_FILE),
    (dictionary_learning.CONFIG_FILE, dictionary_learning.WEIGHTS_FILE),
)


def find_dictionary(path: str, file: str | None = None) -> Path:
    """Return where a dictionary lies on this machine, downloaded if it is on the hub.

    Args:
        path: a folder, a file, or the id of a repository on the hub, `organisation/name`.
        file: folder or file within it; None for itself.

    Raises:
        DictionaryError: there is no such file or folder, or no such id.
        ModelError: the repository cannot be reached, or has no such file.
    """
    here = Path(path).expanduser()
    if here.exists():
        found = here / file if file else here
        if not found.exists():
            raise DictionaryError(f"dictionary.file={file} is not in {here}")
        return found
    if not HUB_ID.fullmatch(path):
        raise DictionaryError(
            f"dictionary.path={path} is neither a file, nor a folder, nor an id on the hub, organisation/name"
        )
    if file is not None and file.endswith(TENSOR_FILES):
        found = download(path, [file])
        for folder in (Path(file).parent, Path(file).parent.parent):
            _download_if_there(path, (folder / CONFIG_FILE).as_posix())
        return found
    inside = "" if file is None else f"{file.rstrip('/')}/"
    try:
        weights = download(path, [f"{inside}{name}" for _, name in FOLDERS])
    except ModelError as error:
        raise ModelError(f"{error}; a repository of several dictionaries needs dictionary.file") from error
    for config, name in FOLDERS:
        if weights.name == name:
            download(path, [f"{inside}{config}"])
    return weights.parent


def read_dictionary(found: Path, hints: Hints | None = None) -> Dictionary:
    """Read the dictionary in a folder, or in a file of tensors, of this project or of another library.

    Args:
        found: the folder or file.
        hints: what the file does not say.

    Raises:
        DictionaryError: it is none, broken, or cannot be encoded with as its library does; the message names the field.
    """
    hints = hints or Hints()
    if found.is_dir():
        return _read_folder(found, hints)
    if found.suffix == ".safetensors":
        folder = next((found.parent for _, name in FOLDERS if name == found.name), None)
        return _read_folder(folder, hints) if folder else read_overcomplete(read_weights(found), found, hints)
    if found.suffix not in TORCH_FILES:
        raise DictionaryError(
            f"{found} is no file of tensors: give a folder, or a file that ends in {', '.join(TENSOR_FILES)}"
        )
    content = read_torch_file(found)
    if is_msae(content):
        return read_msae(found, hints)
    if overcomplete.ATOMS in content:
        return read_overcomplete(tensors_of(content, found), found, hints)
    return read_dictionary_learning(found, hints)


def _read_folder(folder: Path, hints: Hints) -> Dictionary:
    there = [weights for config, weights in FOLDERS if (folder / config).is_file() and (folder / weights).is_file()]
    if not there:
        listed = ", ".join(f"{weights} with {config}" for config, weights in FOLDERS)
        raise DictionaryError(f"{folder} holds no dictionary that can be read; one has {listed}")
    if there[0] == saelens.WEIGHTS_FILE:
        return saelens.import_from_saelens(folder, hints.k, hints.input_scale)
    if there[0] == sparsify.WEIGHTS_FILE:
        return read_sparsify(folder, hints)
    if there[0] == dictionary_learning.WEIGHTS_FILE:
        return read_dictionary_learning(folder / dictionary_learning.WEIGHTS_FILE, hints)
    return Dictionary.from_pretrained(folder)


def _download_if_there(repository: str, name: str) -> None:
    """Fetch a file into the cache, beside others of its repository; some libraries save it and some do not."""
    with hub_or_cache():
        try:
            hf_hub_download(repository, name)
        except EntryNotFoundError:  # also if it is not in the cache, without a network
            return
