"""The feature set `features=pretrained`: a dictionary that somebody else trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmmono.core.errors import ConfigError
from mmmono.core.fingerprints import files_fingerprint, unchanged
from mmmono.core.shown import as_typed
from mmmono.dictionaries import Dictionary, ReconstructionMoments
from mmmono.dictionaries.foreign_files import Hints
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.readers.reading import files_of, find_dictionary, is_on_hub, read_dictionary
from mmmono.dictionaries.readers.trained_on import TrainedOn, read_trained_on
from mmmono.features import FeatureView
from mmmono.features.rows import prepare
from mmmono.features.store import MODALITIES, Manifest
from mmmono.pipeline.specs import Fitted, Width
from mmmono.reporting.tables import console

CHECKED_PAIRS = 2048  # of the training split, on which a dictionary has to reconstruct


@dataclass
class Pretrained(Fitted):
    """`features=pretrained`: a dictionary of this project or another library; settings are `dictionary.*`."""

    settings: Mapping[str, Any]

    @cached_property
    def found(self) -> Path:
        """Where it lies on this machine. Raises DictionaryError or ModelError if it does not or cannot be had."""
        return find_dictionary(as_typed(self.settings["path"]), self.settings["file"])

    @cached_property
    def hints(self) -> Hints:
        """What its file does not say. Raises DictionaryError if a value is invalid."""
        given = self.settings
        return Hints(given["kind"], given["k"], given["input_scale"])

    @cached_property
    def trained_on(self) -> TrainedOn:
        """What its files tell of the embeddings that it was trained on."""
        return read_trained_on(self.found)

    @cached_property
    def identity(self) -> str:
        """Digest of its files when it was first asked for."""
        return self._identity_now()

    def _identity_now(self) -> str:
        return files_fingerprint(files_of(self.found))[:16]

    def recipe(self) -> dict[str, Any]:
        """Content of its files, and what they do not say."""
        checked = {name: self.settings[name] for name in ("max_fvu", "any_model")}
        return {"files": self.identity, **asdict(self.hints), **checked}

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> Dictionary:
        """Read it, and check that it was made for such embeddings.

        Raises:
            ConfigError: it takes embeddings of another width, was trained on another model's or on ones that were
                normalized otherwise, or reconstructs these worse than `dictionary.max_fvu`.
            DictionaryError: it cannot be read.
            ModelError: its files were changed after this command had begun.
        """
        with unchanged(self.identity, self._identity_now, f"the files of dictionary.path={self.settings['path']}"):
            dictionary = read_dictionary(self.found, self.hints)
        self._check_fits(dictionary, train.dim, normalize)
        self._check_maker(train.store.manifest)
        self._check_reconstruction(dictionary, train, normalize)
        return dictionary

    def check(self, dim: Width, normalize: bool, download: bool = True) -> None:
        """Raise ConfigError unless it takes such embeddings, DictionaryError or ModelError if it cannot be read."""
        if not download and is_on_hub(as_typed(self.settings["path"])):
            return
        self._check_fits(read_dictionary(self.found, self.hints), dim(), normalize)

    def _check_fits(self, dictionary: Dictionary, dim: int | None, normalize: bool) -> None:
        if dim not in (None, dictionary.dim):
            raise ConfigError(
                f"dictionary.path={self.settings['path']} takes embeddings of width {dictionary.dim}, these have "
                f"{dim}: choose the model that it was trained on, with model=…"
            )
        if isinstance(dictionary, PretrainedSAE) and dictionary.encoding.input_norm == "constant" and not normalize:
            raise ConfigError(
                f"dictionary.path={self.settings['path']} scales each embedding to one length, which codes do not tell: "
                "give features.normalize=true"
            )
        if self.trained_on.normalize not in (None, normalize):
            raise ConfigError(
                f"dictionary.path={self.settings['path']} was trained with features.normalize={as_typed(not normalize)}: "
                "give that"
            )

    def _check_maker(self, made: Manifest | None) -> None:
        """Raise ConfigError if it is known that other weights made the embeddings that it was trained on."""
        said, path = self.trained_on, f"dictionary.path={self.settings['path']}"
        if self.settings["any_model"] or made is None:
            return
        if said.fingerprint is None:
            told = " ".join(filter(None, (said.model, said.place and f"at {said.place}")))
            if told not in ("", made.model):  # others call models and layers by other names
                console.print(
                    f"{path} was trained on {told}, as its files say; these are embeddings by {made.model}",
                    markup=False, highlight=False,
                )  # fmt: skip
        elif said.fingerprint != made.model_fingerprint:
            raise ConfigError(
                f"{path} was trained on embeddings by {said.model} ({said.fingerprint}), these are by {made.model} "
                f"({made.model_fingerprint}): choose the model with those weights, or give dictionary.any_model=true"
            )

    def _check_reconstruction(self, dictionary: Dictionary, train: FeatureView, normalize: bool) -> None:
        limit = self.settings["max_fvu"]
        if limit is None or not dictionary.decodes:
            return
        moments = {modality: ReconstructionMoments(dictionary.dim, dictionary.num_features) for modality in MODALITIES}
        for block in train.blocks():
            for modality, moment in moments.items():
                stored = getattr(block, modality)[:CHECKED_PAIRS]
                rows = prepare(stored, normalize, "cpu", train.origin(modality, block.start))
                with torch.inference_mode():
                    codes = dictionary.encode(rows, modality)
                    moment.add(rows, dictionary.decode(codes, modality), codes)
            break
        measured = {modality: moment.result().fvu for modality, moment in moments.items()}
        if all(fvu > limit for fvu in measured.values()):
            told = ", ".join(f"{fvu:.2f} of {modality}s" for modality, fvu in measured.items())
            raise ConfigError(
                f"dictionary.path={self.settings['path']} leaves a share of the variance unexplained of {told}, more than "
                f"dictionary.max_fvu={limit:g}: it was made for other embeddings, or for ones that were scaled otherwise "
                "(features.normalize); dictionary.max_fvu=null takes it as it is"
            )
