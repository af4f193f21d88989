"""What `experiments/objectives_synthetic.py` trains: each objective on each setting of the data, with each seed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from mmmono.analyses.objectives_synthetic import Settings
from mmmono.core.errors import ConfigError
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.two_sided import TwoSidedSAE
from mmmono.features.synthetic import KINDS, SyntheticParameters
from mmmono.pipeline.datasets import Synthetic
from mmmono.pipeline.feature_sets import SAE, make_spec

OF_THE_DATA = tuple(field.name for field in fields(SyntheticParameters) if field.name != "seed")


@dataclass(frozen=True)
class Run:
    """A setting of the synthetic data with one seed.

    Attributes:
        data: its name.
        seed: seed of concepts, codes and training.
        cfg: the whole configuration.
        parameters: of the data.
    """

    data: str
    seed: int
    cfg: DictConfig
    parameters: SyntheticParameters

    @property
    def title(self) -> str:
        """Name of the run for the terminal."""
        return f"{self.data}, seed {self.seed}"


def check_dataset(cfg: DictConfig) -> None:
    """Raise ConfigError unless pairs are synthetic; asked before the dataset is made, which may not know `dataset.pairs`."""
    target = str(cfg.dataset._target_)
    if not issubclass(get_class(target), Synthetic):
        raise ConfigError(
            f"dataset={target.rpartition('.')[2].lower()} has no known concepts: leave it out, or run "
            "experiments/objectives.py, which needs none"
        )


def runs(cfg: DictConfig, settings: Settings) -> list[Run]:
    """List the runs. Raises ConfigError if a setting of the data is unknown or invalid; before any data is made."""
    chosen, seeds = list(settings.data), settings.seeds
    if settings.quick:
        chosen, seeds = list(dict.fromkeys((chosen[0], chosen[-1]))), 1
    return [Run(name, seed, *_with(cfg, settings, name, seed)) for name in chosen for seed in range(seeds)]


def _with(cfg: DictConfig, settings: Settings, name: str, seed: int) -> tuple[DictConfig, SyntheticParameters]:
    """Set the data and the seed; scale the dictionaries: k to the active concepts, width to the concepts."""
    changes = settings.data[name]
    if unknown := [key for key in changes if key not in OF_THE_DATA]:
        raise ConfigError(
            f"objectives_synthetic.data.{name} sets {unknown[0]!r}, which is no setting of the synthetic data: choose from "
            f"{', '.join(OF_THE_DATA)}"
        )
    result = OmegaConf.merge(cfg, {"seed": seed, "dataset": {**changes, "seed": seed}})
    assert isinstance(result, DictConfig)
    data = result.dataset
    parameters = SyntheticParameters(**{key: data[key] for key in OF_THE_DATA}, seed=seed)
    counts = {kind: getattr(parameters, f"{kind}_atoms") for kind in KINDS}
    for of, node in result.features.sets.items():
        spec = make_spec(of, node)
        if spec.section not in result or "expansion" not in result[spec.section]:
            continue
        own = isinstance(spec, SAE) and issubclass(dictionary_class(spec.architecture), TwoSidedSAE)
        concepts = counts["shared"] + max(counts["image"], counts["text"]) if own else sum(counts.values())
        section = result[spec.section]
        section.expansion = settings.latents * concepts / parameters.dim
        if "k" in section:
            section.k = max(1, round(parameters.active))
    return result, parameters
