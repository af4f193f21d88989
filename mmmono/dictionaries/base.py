"""What every dictionary shares: an encoder of either modality into features, and weights in a folder of their own."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import DictionaryError
from mmmono.features.feature_set import FeatureSet
from mmmono.features.store import Modality

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


class Dictionary(nn.Module, ABC):
    """A learned map from embeddings `[batch, dim]` to features `[batch, num_features]`.

    Attributes:
        architecture: name in the configuration file that says which class to make again.
    """

    architecture: ClassVar[str]
    _architectures: ClassVar[dict[str, type[Dictionary]]] = {}
    dim: int
    num_features: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Dictionary._architectures[cls.architecture] = cls

    @abstractmethod
    def encode(self, z: Float[Tensor, "batch dim"], modality: Modality) -> Float[Tensor, "batch features"]:
        """Features of embeddings of one modality."""

    def decode(self, codes: Float[Tensor, "batch features"], modality: Modality) -> Float[Tensor, "batch dim"]:
        """Embeddings that have these features; DictionaryError where there is no way back."""
        raise DictionaryError(f"a {self.architecture} dictionary has no decoder: use features=raw or features=sae")

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments that make this dictionary again."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights (safetensors) and configuration (JSON), readable without running any code of theirs."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        config = {"architecture": self.architecture, **self.config()}
        write_text_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote; called on `Dictionary` itself it takes whatever kind lies there.

        Raises:
            DictionaryError: the folder holds no dictionary, one of another kind, or broken files.
        """
        folder = Path(folder)
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if missing:
            raise DictionaryError(
                f"no dictionary in {folder}: {' and '.join(missing)} not there; train one with experiments/train.py"
            )
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            made = Dictionary._architectures[config.pop("architecture")]
            weights = load_file(folder / WEIGHTS_FILE)
        except (ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise DictionaryError(f"{folder} holds no readable dictionary ({error!r}): train it again") from error
        if not issubclass(made, cls):
            raise DictionaryError(
                f"{folder} holds a {made.__name__}, not a {cls.__name__}: load it with {made.__name__}"
            )
        dictionary = made(**config)
        try:
            dictionary.load_state_dict(weights)
        except RuntimeError as error:
            raise DictionaryError(
                f"{folder}: weights do not fit their configuration ({error}): train it again"
            ) from error
        return dictionary.eval()


class DictionaryFeatures(FeatureSet):
    """A trained dictionary's features."""

    def __init__(self, name: str, dictionary: Dictionary) -> None:
        self.name = name
        self.dictionary = dictionary
        self.input_dim = dictionary.dim
        self.num_features = dictionary.num_features

    def encode(
        self, embeddings: Float[Tensor, "batch input_dim"], modality: Modality
    ) -> Float[Tensor, "batch num_features"]:
        """The dictionary's features."""
        return self.dictionary.encode(embeddings, modality)

    def decode(
        self, activations: Float[Tensor, "batch num_features"], modality: Modality
    ) -> Float[Tensor, "batch input_dim"]:
        """The dictionary's reconstruction."""
        return self.dictionary.decode(activations, modality)
