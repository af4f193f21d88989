"""The trained dictionary that a training starts from: `sae.init_from`, `batch_topk.init_from`, and so on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmmono.core.errors import ConfigError, DictionaryError
from mmmono.core.fingerprints import files_fingerprint, unchanged

if TYPE_CHECKING:
    from mmmono.dictionaries import SparseAutoencoder


@dataclass
class Start:
    """Files that a training starts from.

    Readers are imported when they are needed: they take the hub's client, which is slow.

    Attributes:
        option: name of the option that gives them.
        path: its value.
    """

    option: str
    path: str

    def __str__(self) -> str:
        return f"{self.option}={self.path}"

    @cached_property
    def found(self) -> Path:
        """Where they lie on this machine. Raises DictionaryError or ModelError if they do not or cannot be had."""
        from mmmono.dictionaries.readers.reading import find_dictionary

        return find_dictionary(self.path, option=self.option)

    @cached_property
    def identity(self) -> str:
        """Digest of their content when it was first asked for."""
        return self._identity_now()

    def _identity_now(self) -> str:
        from mmmono.dictionaries.readers.reading import files_of

        return files_fingerprint(files_of(self.found))[:16]

    def check(self, dim: int | None, download: bool) -> None:
        """Raise ConfigError unless they hold a dictionary of this width; DictionaryError and ModelError: see `found`."""
        from mmmono.dictionaries.readers.reading import is_on_hub, read_dictionary

        if not download and is_on_hub(self.path):
            return
        found = self.found
        try:
            width = read_dictionary(found).dim
        except DictionaryError as error:
            raise self._explained(error) from error
        if dim not in (None, width):
            raise ConfigError(
                f"{self} takes embeddings of width {width}, these have {dim}: choose its model, with model=…"
            )

    def begin(self, sae: SparseAutoencoder) -> None:
        """Give an autoencoder their weights.

        Raises:
            ConfigError: they do not fit.
            ModelError: they were changed since `identity`.
        """
        from mmmono.dictionaries.readers.reading import read_dictionary
        from mmmono.dictionaries.starting import start_from

        with unchanged(self.identity, self._identity_now, f"the files of {self}"):
            try:
                start_from(sae, read_dictionary(self.found))
            except DictionaryError as error:
                raise self._explained(error) from error

    def _explained(self, error: DictionaryError) -> ConfigError:
        """The error with whole names of settings, and what to do about a file that needs those of `features=pretrained`."""
        remedy = "; these are settings of features=pretrained: run it once, and start from the folder of its dictionary"
        needs = re.search(r"dictionary\.(kind|k|input_scale)\b", str(error))
        told = re.sub(r"\bset (?=\w+=)", f"set {self.option.rpartition('.')[0]}.", str(error))
        return ConfigError(f"{self}: {told}{remedy if needs else ''}")
