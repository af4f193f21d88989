"""Read a dictionary that this project or another library saved, from disk or from the hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from mmmono.core.errors import DictionaryError, MmmonoError, ModelError
from mmmono.core.files import user_path
from mmmono.core.text import message_of
from mmmono.dictionaries import saelens
from mmmono.dictionaries.base import CONFIG_FILE, WEIGHTS_FILE, Dictionary, read_weights
from mmmono.dictionaries.foreign_files import Hints, read_torch_file, tensors_of
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.readers import dictionary_learning, overcomplete, sparsify
from mmmono.dictionaries.readers.dictionary_learning import read_dictionary_learning
from mmmono.dictionaries.readers.msae import is_msae, read_msae
from mmmono.dictionaries.readers.overcomplete import read_overcomplete
from mmmono.dictionaries.readers.sparsify import read_sparsify
from mmmono.dictionaries.readers.trained_on import TRAINED_ON_FILE
from mmmono.vlm.hub import download, hub_or_cache

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_ADDRESS = re.compile(rf"(?P<name>{HUB_ID.pattern})(@(?P<revision>[\w./-]+))?")
HUB_INSIDE = re.compile(rf"{HUB_ID.pattern}/[\w./-]+")  # what may be a folder of a repository
TORCH_FILES = (".pt", ".pth")
TENSOR_FILES = (*TORCH_FILES, ".safetensors")
# Files of a folder by which it is known: configuration and weights of each library.
FOLDERS = (
    (CONFIG_FILE, WEIGHTS_FILE),
    (saelens.CONFIG_FILE, saelens.WEIGHTS_FILE),
    (sparsify.CONFIG_FILE, sparsify.WEIGHTS_FILE),
    (dictionary_learning.CONFIG_FILE, dictionary_learning.WEIGHTS_FILE),
)
# What some folders hold, too, by their file of weights.
BESIDE = {WEIGHTS_FILE: TRAINED_ON_FILE, saelens.WEIGHTS_FILE: saelens.SCALER_FILE}
CONFIGURATIONS = (*dict.fromkeys(config for config, _ in FOLDERS), *BESIDE.values())


def is_on_hub(path: str) -> bool:
    """Whether a path stands for a repository, which `find_dictionary` downloads from."""
    return not user_path(path).exists() and HUB_ADDRESS.fullmatch(path) is not None


def find_dictionary(path: str, file: str | None = None, option: str = "dictionary.path") -> Path:
    """Return where a dictionary lies on this machine, downloaded if it is on the hub.

    Args:
        path: a folder, a file, or the id of a repository on the hub, `organisation/name`, or `organisation/name@revision`
            for a branch, a tag or a commit.
        file: folder or file within it; None for itself.
        option: name of the option that gave the path, for messages.

    Raises:
        DictionaryError: there is no such file or folder, or no such id.
        ModelError: the repository cannot be reached, or has no such file.
    """
    here = user_path(path)
    if here.exists():
        found = here / file if file else here
        if not found.exists():
            raise DictionaryError(f"dictionary.file={file} is not in {here}")
        return found
    name, revision = _on_hub(path, option)
    if file is not None and file.endswith(TENSOR_FILES):
        found = download(name, [file], revision=revision)
        for folder in dict.fromkeys((Path(file).parent, Path(file).parent.parent)):
            for config in CONFIGURATIONS:
                _download_if_there(name, (folder / config).as_posix(), revision)
        return found
    inside = "" if file is None else f"{file.rstrip('/')}/"
    try:
        weights = download(name, [f"{inside}{weights}" for _, weights in FOLDERS], revision=revision)
    except ModelError as error:
        remedy = "needs dictionary.file" if option == "dictionary.path" else "has to be downloaded first"
        raise ModelError(f"{error}; a repository of several dictionaries {remedy}") from error
    for config, file_name in FOLDERS:
        if weights.name == file_name:
            download(name, [f"{inside}{config}"], revision=revision)
    if (beside := BESIDE.get(weights.name)) is not None:
        _download_if_there(name, f"{inside}{beside}", revision)
    return weights.parent


def _on_hub(path: str, option: str) -> tuple[str, str | None]:
    """Return the repository's id and the revision that a path names. Raises DictionaryError if it names none."""
    if (address := HUB_ADDRESS.fullmatch(path)) is not None:
        return address["name"], address["revision"]
    inside = ""
    if option == "dictionary.path" and HUB_INSIDE.fullmatch(path):
        inside = f", with the folder in it as dictionary.file={'/'.join(path.split('/')[2:])}"
    raise DictionaryError(
        f"{option}={path} is neither a file, nor a folder, nor an id on the hub, organisation/name{inside}"
    )


def load_dictionary(path: str | Path) -> Dictionary:
    """Read the dictionary at a path or with an id on the hub, which this project or another library saved.

    Args:
        path: as for `find_dictionary`.

    Raises:
        DictionaryError: there is none, or it cannot be read.
        ModelError: the repository cannot be reached.
    """
    return read_dictionary(find_dictionary(str(path), option="path"))


def files_of(found: Path) -> dict[str, Path]:
    """Return the files that a dictionary is read from, by their names from its folder.

    Of a folder, these are its configurations and files of tensors. Of a file, itself and the configurations of libraries
    beside it and one folder above it.
    """
    if found.is_dir():
        inside = (file for file in found.iterdir() if file.suffix in (".json", *TENSOR_FILES) and file.is_file())
        return {file.name: file for file in inside}
    around = {f"{above}{name}": found.parent / f"{above}{name}" for above in ("", "../") for name in CONFIGURATIONS}
    return {found.name: found} | {name: file for name, file in around.items() if file.is_file()}


def read_dictionary(found: Path, hints: Hints | None = None) -> Dictionary:
    """Read the dictionary in a folder, or in a file of tensors, of this project or of another library.

    Args:
        found: the folder or file.
        hints: what the file does not say.

    Raises:
        DictionaryError: it is none, broken, or cannot be encoded with as its library does, or a hint would change nothing;
            the message names the field.
    """
    hints = hints or Hints()
    folder = found if found.is_dir() else None
    if found.suffix == ".safetensors" and any(name == found.name for _, name in FOLDERS):
        folder = found.parent
    weights = None if folder is None else _weights_of(folder)
    if weights != saelens.WEIGHTS_FILE and hints.input_scale is not None:
        raise _useless(
            "input_scale", hints.input_scale, found, "only SAELens scales inputs by a number outside its file"
        )
    if weights is not None and weights != dictionary_learning.WEIGHTS_FILE and hints.kind is not None:
        raise _useless("kind", hints.kind, found, "its configuration alone says what saved it")
    try:
        dictionary = (
            _read_file(found, hints) if folder is None or weights is None else _read_folder(folder, weights, hints)
        )
    except (MmmonoError, OSError, MemoryError):
        raise
    except Exception as error:  # tensors of wrong shapes can fail in any operation
        raise DictionaryError(
            f"{found}: its tensors do not fit each other ({message_of(error)}): compare their shapes with those that its "
            "library saves"
        ) from error
    _check_k(dictionary, found, hints.k)
    return dictionary


def _check_k(dictionary: Dictionary, found: Path, k: int | None) -> None:
    """Raise DictionaryError if a number of active latents was given that the dictionary does not encode with."""
    if k is None:
        return
    if not isinstance(dictionary, PretrainedSAE):
        raise _useless("k", k, found, "a dictionary of this project encodes as it was trained")
    encoding = dictionary.encoding
    if encoding.activation not in ("topk", "groupmax", "matching_pursuit"):
        raise _useless(
            "k", k, found, f"its codes come from {encoding.activation}, which has no number of active latents"
        )
    if encoding.k != k:
        raise _useless("k", k, found, f"a dictionary of this project encodes as it was saved, with k={encoding.k}")


def _useless(name: str, value: object, found: Path, reason: str) -> DictionaryError:
    return DictionaryError(
        f"dictionary.{name}={value} would change nothing of {found}: {reason}; give dictionary.{name}=null"
    )


def _read_file(found: Path, hints: Hints) -> Dictionary:
    """Read a file whose name does not tell its library."""
    if found.suffix == ".safetensors":
        return read_overcomplete(read_weights(found), found, hints)
    if found.suffix not in TORCH_FILES:
        raise DictionaryError(
            f"{found} is no file of tensors: give a folder, or a file that ends in {', '.join(TENSOR_FILES)}"
        )
    content = read_torch_file(found)
    if is_msae(content):
        if hints.kind is not None:
            raise _useless("kind", hints.kind, found, "its name says how it encodes")
        return read_msae(found, hints)
    if overcomplete.is_overcomplete(content):
        return read_overcomplete(tensors_of(content, found), found, hints)
    return read_dictionary_learning(found, hints)


def _weights_of(folder: Path) -> str:
    """Name of the file of tensors in a folder. Raises DictionaryError if it holds no dictionary."""
    there = [weights for config, weights in FOLDERS if (folder / config).is_file() and (folder / weights).is_file()]
    if not there:
        held = sorted({file.parent.name for _, weights in FOLDERS for file in folder.glob(f"*/{weights}")})
        inside = f"; {len(held)} in it hold one, such as {held[0]}: give that folder" if held else ""
        listed = ", ".join(f"{weights} with {config}" for config, weights in FOLDERS)
        raise DictionaryError(f"{folder} holds no dictionary that can be read; one has {listed}{inside}")
    return there[0]


def _read_folder(folder: Path, weights: str, hints: Hints) -> Dictionary:
    if weights == saelens.WEIGHTS_FILE:
        return saelens.import_from_saelens(folder, hints.k, hints.input_scale)
    if weights == sparsify.WEIGHTS_FILE:
        return read_sparsify(folder, hints)
    if weights == dictionary_learning.WEIGHTS_FILE:
        return read_dictionary_learning(folder / dictionary_learning.WEIGHTS_FILE, hints)
    return Dictionary.from_pretrained(folder)


def _download_if_there(repository: str, name: str, revision: str | None) -> None:
    """Fetch a file into the cache, beside others of its repository; some libraries save it and some do not."""
    with hub_or_cache():
        try:
            hf_hub_download(repository, name, revision=revision)
        except EntryNotFoundError:  # also if it is not in the cache, without a network
            return
