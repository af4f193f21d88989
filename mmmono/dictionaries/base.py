"""Base class of dictionaries: encode each modality into features, save and load the weights."""

from __future__ import annotations

import contextlib
import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from itertools import chain
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.core.finite import check_tensor
from mmmono.core.ranges import check_whole
from mmmono.core.saved import made_anew
from mmmono.core.text import message_of
from mmmono.features.feature_set import FeatureSet
from mmmono.features.store import Modality

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
GIT_LFS = b"version https://git-lfs"
NO_DICTIONARY = "this is no readable dictionary"
# Modules of this package that take Lightning, which takes seconds, and define no dictionary.
TRAINING = ("callbacks", "datamodule", "modules", "one_pass", "resume_checkpoint")


class Dictionary(nn.Module, ABC):
    """A learned map from embeddings `[batch, dim]` to features `[batch, num_features]`.

    Attributes:
        architecture: name of the class in `config.json`, from which `from_pretrained` finds it again.
        dim: width of the embeddings.
        num_features: number of features.
    """

    architecture: ClassVar[str]
    _architectures: ClassVar[dict[str, type[Dictionary]]] = {}
    dim: int
    num_features: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "architecture" in vars(cls):  # base classes of several kinds have none
            Dictionary._architectures[cls.architecture] = cls

    @abstractmethod
    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Encode embeddings of one modality, of any floating type, into features.

        Raises:
            TypeError: they are no tensor.
            ValueError: they are no matrix, or of another width.
        """

    def fitting(self, values: Tensor, width: int, name: str) -> Tensor:
        """Return embeddings or codes in the type of the weights. Raises TypeError or ValueError, see `encode`."""
        check_tensor(values, name)
        if values.ndim != 2 or values.shape[1] != width:
            raise ValueError(
                f"{name} [batch, {width}] expected by this {self.architecture} dictionary, got {tuple(values.shape)}"
            )
        return values.to(next(chain(self.parameters(), self.buffers())).dtype)

    def decode(self, codes: Float[Tensor, "batch features"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Reconstruct embeddings of one modality from features.

        Raises:
            DictionaryError: the dictionary has no decoder.
        """
        raise DictionaryError(f"a {self.architecture} dictionary has no decoder: use features=raw or features=sae")

    @property
    def decodes(self) -> bool:
        """Whether the dictionary has a decoder."""
        return type(self).decode is not Dictionary.decode

    @property
    def atoms(self) -> Float[Tensor, "features dim"] | None:
        """Direction in the embedding space that each feature stands for; None if the features have none."""
        return None

    def decode_each(self, chosen: Int64[Tensor, " chosen"], modality: Modality) -> Float[Tensor, "chosen dim"] | None:
        """Return what `decode` makes of a code of 1 of each chosen feature alone; None if it has to be asked."""
        return None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments of this dictionary."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Save weights (safetensors) and configuration (JSON); loading them executes no stored code."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        config = {"architecture": self.architecture, **self.config()}
        write_text_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2, default=_plain) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a dictionary in evaluation mode; `Dictionary.from_pretrained` accepts every architecture.

        Raises:
            DictionaryError: the folder holds no dictionary, one of another class, or broken files.
        """
        folder = Path(folder)
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if missing:
            raise DictionaryError(
                f"no dictionary in {folder}: {' and '.join(missing)} not there; train one with experiments/train.py"
            )
        config = read_config(folder / CONFIG_FILE)
        try:
            made = dictionary_class(config.pop("architecture", None))
        except DictionaryError as error:
            raise DictionaryError(
                f"{folder / CONFIG_FILE}: {error}: it holds no readable dictionary of this project"
            ) from error
        if not issubclass(made, cls):
            raise DictionaryError(
                f"{folder} holds a {made.__name__}, not a {cls.__name__}: load it with {made.__name__}"
            )
        weights = read_weights(folder / WEIGHTS_FILE)
        try:
            dictionary = made(**config)
        except Exception as error:  # the file may hold values of any type
            raise DictionaryError(f"{folder / CONFIG_FILE} makes no {made.__name__} ({message_of(error)})") from error
        if wrong := unfitting(weights, dictionary.state_dict()):
            raise DictionaryError(f"{folder}: weights do not fit their configuration ({wrong}): train it again")
        dictionary.load_state_dict(weights)
        return dictionary.eval()


def check_sizes(dim: int, num_features: int | None) -> tuple[int, int]:
    """Return the width of the embeddings and the number of features, by default as many; ValueError if one is below 1."""
    check_whole("dim", dim)
    if num_features is None:
        return dim, dim
    check_whole("num_features", num_features)
    return dim, num_features


def dictionary_class(architecture: object) -> type[Dictionary]:
    """Return the class of an architecture, from any module of this package. Raises DictionaryError if there is none."""
    if isinstance(architecture, str) and architecture not in Dictionary._architectures:
        package = __name__.rpartition(".")[0]
        for module in iter_modules(import_module(package).__path__):
            if module.name not in TRAINING:
                import_module(f"{package}.{module.name}")
    if not isinstance(architecture, str) or architecture not in Dictionary._architectures:
        known = ", ".join(sorted(Dictionary._architectures))
        raise DictionaryError(f"architecture={architecture!r} is none of {known}")
    return Dictionary._architectures[architecture]


def read_config(file: Path) -> dict[str, Any]:
    """Read a dictionary's configuration. Raises DictionaryError unless it is a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DictionaryError(
            f"{file} is no readable JSON ({message_of(error)}): {made_anew(file, NO_DICTIONARY, error)}"
        ) from error
    if not isinstance(content, dict):
        raise DictionaryError(
            f"{file} holds a {type(content).__name__}, not an object: {made_anew(file, NO_DICTIONARY)}"
        )
    return content


def _plain(value: object) -> object:
    """A number of NumPy or PyTorch, which JSON lacks, as one of Python. Raises TypeError for anything else."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        plain: object = value.item()
        return plain
    raise TypeError(f"{type(value).__name__} is no value of a configuration: {value!r}")


def check_no_pointer(file: Path) -> None:
    """Raise DictionaryError if git-lfs left a pointer in place of a file, as a clone without it does."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        if opened.read(len(GIT_LFS)) == GIT_LFS:
            raise DictionaryError(
                f"{file} is a git-lfs pointer, not the weights: run 'git lfs pull' where it was cloned"
            )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a dictionary's tensors. Raises DictionaryError if the file is broken or a tensor is not finite."""
    check_no_pointer(file)
    try:
        weights = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise DictionaryError(
            f"{file} is no whole safetensors file ({message_of(error)}): {made_anew(file, NO_DICTIONARY, error)}"
        ) from error
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise DictionaryError(f"{file}: {name} holds NaN or infinite numbers: its training diverged")
    return weights


def unfitting(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describe up to four missing, unknown or wrongly shaped tensors; empty if all of them fit."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weight.shape)}, not {tuple(expected[name].shape)}"
        for name, weight in weights.items()
        if name in expected and weight.shape != expected[name].shape
    ]
    return ", ".join(problems[:4])


class DictionaryFeatures(FeatureSet):
    """Features of a trained dictionary, as a feature set."""

    def __init__(self, name: str, dictionary: Dictionary) -> None:
        self.name = name
        self.dictionary = dictionary
        self.input_dim = dictionary.dim
        self.num_features = dictionary.num_features

    def copied_to(self, device: str | torch.device) -> Self:
        """Return the feature set with a copy of the dictionary on a device."""
        return type(self)(self.name, copy.deepcopy(self.dictionary).to(device))

    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """Encode embeddings with the dictionary."""
        return self.dictionary.encode(embeddings, modality)

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """Reconstruct embeddings with the dictionary. Raises DictionaryError if it has no decoder."""
        return self.dictionary.decode(activations, modality)

    def decode_each(
        self, chosen: Int64[Tensor, " chosen"], modality: Modality
    ) -> Float[Tensor, "chosen input_dim"] | None:
        """See `FeatureSet.decode_each`."""
        return self.dictionary.decode_each(chosen, modality)

    @property
    def decodes(self) -> bool:
        """Whether the dictionary has a decoder."""
        return self.dictionary.decodes

    @property
    def atoms(self) -> Float[Tensor, "num_features input_dim"] | None:
        """Atoms of the dictionary; None if it has none."""
        return self.dictionary.atoms
