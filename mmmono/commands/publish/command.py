"""`experiments/publish.py`: write a dictionary with its model card into a folder, and put it on the hub."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from mmmono.analyses.train import TRAIN, metric_rows
from mmmono.commands.publish.card import Origin, model_card
from mmmono.core.artifacts import Artifact, write_text_atomically
from mmmono.core.disk_trouble import explain_disk_trouble
from mmmono.core.errors import ConfigError, DictionaryError, ModelError
from mmmono.data.hub import endpoint, hub_token
from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.readers.reading import HUB_ID
from mmmono.dictionaries.saelens import export_to_saelens
from mmmono.pipeline.model import UNNAMED
from mmmono.pipeline.pretrained import Pretrained
from mmmono.pipeline.training import embeddings_of
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console
from mmmono.vlm.hub import be_patient, hub_reason

CARD_FILE = "README.md"
CURVES = "training_curves.png"
SAELENS = "saelens"  # folder with the dictionary as SAELens saves it


@dataclass(frozen=True)
class Settings:
    """Settings of the section `publish`.

    Attributes:
        folder: receives a folder for each dictionary.
        repository: id on the hub, `organisation/name`; None puts nothing there.
        private: whether a new repository is private.
        license: the hub's name of a licence, such as `cc-by-4.0`, for the card.
    """

    folder: str
    repository: str | None
    private: bool
    license: str | None

    def __post_init__(self) -> None:
        if self.repository is not None and not HUB_ID.fullmatch(self.repository):
            raise ValueError(f"repository={self.repository} is no id on the hub, which looks like organisation/name")
        if self.license is not None and not re.fullmatch(r"[\w.-]+", self.license):
            raise ValueError(f"license={self.license} is no name of a licence on the hub, such as cc-by-4.0 or mit")


def publish(workspace: Workspace) -> None:
    """Make the dictionary of the feature set unless it exists, write its folder, and upload it.

    Raises:
        ConfigError: not one feature set with a dictionary is selected, or there is no token for the hub.
        ModelError: the hub refuses it or cannot be reached; the folder is there then.
    """
    settings = read_settings(workspace.cfg, "publish", Settings)
    names = [name for name, spec in workspace.specs.items() if spec.made]
    if len(names) != 1:
        raise ConfigError(
            f"features={','.join(workspace.specs)} has {len(names)} dictionaries: choose one feature set to publish"
        )
    if isinstance(workspace.specs[names[0]], Pretrained):
        raise ConfigError(
            "features=pretrained is a dictionary that somebody else trained: publish a feature set that is trained here"
        )
    if settings.repository is not None and hub_token() is None:
        raise ConfigError(
            f"publish.repository={settings.repository} needs a token that may write: log in with 'hf auth login', or set "
            "HF_TOKEN"
        )
    artifact = workspace.dictionary(names[0])
    folder = Path(settings.folder) / artifact.path.name
    write_folder(workspace, artifact, folder, settings)
    console.print(f"wrote {folder}")
    if _unnamed(workspace) and workspace.dataset.embedded:
        console.print(
            "its card does not say which model made the embeddings: model.name=… names it, and trains anew under that name"
        )
    if settings.repository is not None:
        console.print(f"published {_upload(folder, settings.repository, settings.private)}")


def write_folder(workspace: Workspace, artifact: Artifact, folder: Path, settings: Settings) -> None:
    """Write a dictionary, its card and its training curves into a folder, which is replaced if it is there.

    Raises:
        MmmonoError: the disk is full or not writable.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(workspace, artifact, partial, settings.repository or "path/to/this/folder", settings.license)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except Exception as error:  # safetensors does not raise an OSError
        shutil.rmtree(partial, ignore_errors=True)
        if (explained := explain_disk_trouble(error, settings.folder, "publish.folder")) is None:
            raise
        raise explained from error


def _write(workspace: Workspace, artifact: Artifact, folder: Path, path: str, license: str | None) -> None:
    """Write the files; `path` is what reads them in the card's examples."""
    dictionary = Dictionary.from_pretrained(artifact.path)
    dictionary.save_pretrained(folder)
    result = TRAIN.result(artifact, workspace.model.name, workspace.dataset_name, workspace.modalities)
    trained = (artifact.path / "history.parquet").exists()
    if (artifact.path / CURVES).exists():
        shutil.copy(artifact.path / CURVES, folder / CURVES)
    view = workspace.features(workspace.settings.training.split).view
    embeddings_of(view, workspace.settings.features.normalize).write(folder)
    origin = Origin(
        None if _unnamed(workspace) else workspace.model.name, workspace.dataset_name,
        len(view), len(np.unique(view.groups())), artifact.versions, dict(artifact.recipe),
        workspace.modalities,
    )  # fmt: skip
    card = model_card(
        dictionary, origin, metric_rows(result) if trained else [], path, license,
        _exported(dictionary, folder / SAELENS, origin.model),
    )  # fmt: skip
    write_text_atomically(folder / CARD_FILE, card)


def _unnamed(workspace: Workspace) -> bool:
    """Whether nothing says which model made the embeddings, or none did."""
    return workspace.model.name == UNNAMED or not workspace.dataset.embedded


def _exported(dictionary: Dictionary, folder: Path, model: str | None) -> bool:
    """Whether SAELens has such a dictionary; it is then written for it."""
    if not isinstance(dictionary, SparseAutoencoder):
        return False
    try:
        export_to_saelens(dictionary, folder, model)
    except DictionaryError:
        return False
    return True


def _upload(folder: Path, repository: str, private: bool) -> str:
    """Put a folder into a repository, which is made unless it is there, and return its address."""
    be_patient()
    api = HfApi(endpoint=endpoint(), token=hub_token())
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Upload a dictionary of mmmono",
            delete_patterns=[f"{SAELENS}/*", CURVES],  # of one that was there before
        )  # fmt: skip
    except Exception as error:  # the client raises its own errors, its HTTP library's and the system's
        reason = hub_reason(error)
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            reason = "the token may not write there: use one that may, with 'hf auth login' or HF_TOKEN"
        raise ModelError(f"cannot publish {folder} to {repository}: {reason}") from error
    return str(address)
