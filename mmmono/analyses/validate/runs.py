"""Settings of the synthetic data that `experiments/validate.py` compares, each varying one parameter from the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmmono.analyses.validate import Settings
from mmmono.core.errors import ConfigError
from mmmono.features.synthetic import KINDS, SyntheticParameters

OF_THE_DATA = tuple(field.name for field in fields(SyntheticParameters) if field.name != "seed")
LEAK = 0.5  # of single-modality concepts where shared ones are lopsided


@dataclass(frozen=True)
class Run:
    """One setting of the synthetic data with one seed.

    Attributes:
        parameter: the varied parameter; empty for the base setting, `equal_gains` if all gains are equal.
        value: the parameter's value; None for the base setting and `equal_gains`.
        seed: seed of concepts, codes and training.
        cfg: the whole configuration.
    """

    parameter: str
    value: float | None
    seed: int
    cfg: DictConfig

    @property
    def title(self) -> str:
        """Name of the run for the terminal."""
        return f"{self.parameter or 'base'}{'' if self.value is None else f' {self.value:g}'}, seed {self.seed}"


def runs(cfg: DictConfig, settings: Settings) -> list[Run]:
    """List the runs: the base setting, every value of every parameter, and equal gains, each with all its seeds.

    Raises:
        ConfigError: a parameter is unknown or its value invalid; raised before any data is made.
    """
    if unknown := [name for name in settings.parameters if name not in PARAMETERS]:
        raise ConfigError(f"validate.parameters names {unknown[0]!r}: choose from {', '.join(PARAMETERS)}")
    variations: list[tuple[str, float | None]] = [("", None)]
    if not settings.quick:
        variations += [(name, value) for name, values in settings.parameters.items() for value in values]
    found = [
        Run(name, value, seed, varied(cfg, name, value, seed))
        for name, value in variations
        for seed in range(settings.seeds)
    ]
    if not settings.quick:
        found += [Run("equal_gains", None, s, _equal_gains(cfg, s)) for s in range(settings.equal_gains.seeds)]
    return found


def base_values(cfg: DictConfig, settings: Settings) -> dict[str, float]:
    """Value of each varied parameter in the base setting; empty if none is varied."""
    return {} if settings.quick else {name: PARAMETERS[name].base(cfg) for name in settings.parameters}


def varied(cfg: DictConfig, parameter: str, value: float | None, seed: int) -> DictConfig:
    """Set one parameter and the seed; scale the dictionaries: k to the active concepts, width to all concepts."""
    result = OmegaConf.merge(cfg, {"seed": seed, "dataset": {"seed": seed}})
    assert isinstance(result, DictConfig)
    if parameter in PARAMETERS and value is not None:
        PARAMETERS[parameter].vary(result, value)
    _fit_dictionaries(result, value if parameter == "k" else None)
    return result


@dataclass(frozen=True)
class _Parameter:
    base: Callable[[DictConfig], float]
    vary: Callable[[DictConfig, Any], None]


def _own(name: str) -> _Parameter:
    return _Parameter(
        lambda cfg: float(cfg.dataset[name]), lambda cfg, value: OmegaConf.update(cfg.dataset, name, value)
    )


def _atoms(cfg: DictConfig) -> int:
    return sum(cfg.dataset[f"{kind}_atoms"] for kind in KINDS)


def _superpose(cfg: DictConfig, value: float) -> None:
    """Scale the numbers of all three kinds of atoms together, to `value` atoms per dimension."""
    factor = value * cfg.dataset.dim / _atoms(cfg)
    for kind in KINDS:
        cfg.dataset[f"{kind}_atoms"] = round(cfg.dataset[f"{kind}_atoms"] * factor)


def _share(cfg: DictConfig, value: float) -> None:
    """Make a fraction `value` of all atoms shared; image and text atoms keep their ratio."""
    if not 0 < value < 1:
        raise ConfigError(
            f"validate.parameters.shared_share={value} is a share of the concepts: give more than 0, less than 1"
        )
    data, atoms = cfg.dataset, _atoms(cfg)
    image = data.image_atoms / (data.image_atoms + data.text_atoms)
    data.shared_atoms = round(atoms * value)
    data.image_atoms = round((atoms - data.shared_atoms) * image)
    data.text_atoms = atoms - data.shared_atoms - data.image_atoms


def _lopsided(cfg: DictConfig, value: float) -> None:
    """Shared concepts with gain ratios up to `value` against single-modality ones that leak: R(d) says little of them."""
    cfg.dataset.gain_ratio = value
    cfg.dataset.leak = LEAK


PARAMETERS: Mapping[str, _Parameter] = {
    **{name: _own(name) for name in OF_THE_DATA if name != "noise_from"},
    "lopsided": _Parameter(lambda cfg: float(cfg.dataset.gain_ratio), _lopsided),
    "superposition": _Parameter(lambda cfg: _atoms(cfg) / cfg.dataset.dim, _superpose),
    "shared_share": _Parameter(lambda cfg: cfg.dataset.shared_atoms / _atoms(cfg), _share),
    "latents": _Parameter(
        lambda cfg: float(cfg.validate.latents), lambda cfg, value: OmegaConf.update(cfg.validate, "latents", value)
    ),
    "k": _Parameter(lambda cfg: float(_active(cfg)), lambda cfg, value: None),
}


def _active(cfg: DictConfig) -> int:
    return max(1, round(cfg.dataset.active))


def _equal_gains(cfg: DictConfig, seed: int) -> DictConfig:
    """Set the gains of all shared concepts to 1, so that the permutation null holds for them."""
    result = varied(cfg, "", None, seed)
    result.dataset = OmegaConf.merge(
        result.dataset, cfg.validate.equal_gains.dataset, {"gain_spread": 0.0, "seed": seed}
    )
    _fit_dictionaries(result, None)
    # The permutation null is tested on the true codes and on the latents of the SAE.
    result.features.sets = {name: made for name, made in result.features.sets.items() if name == "sae"}
    return result


def _fit_dictionaries(cfg: DictConfig, k: float | None) -> None:
    parameters = SyntheticParameters(**{name: cfg.dataset[name] for name in OF_THE_DATA}, seed=cfg.dataset.seed)
    atoms, latents = _atoms(cfg), cfg.validate.latents
    if not latents > 0:
        raise ConfigError(f"validate.latents={latents} leaves no latent: give a positive number of them a concept")
    chosen = _active(cfg) if k is None else k
    if chosen != int(chosen) or not 1 <= chosen <= min(atoms, round(latents * atoms)):
        raise ConfigError(
            f"k={chosen} active latents, but the data has only {atoms} concepts: give a whole number up to that"
        )
    for name in cfg.features.sets:
        if name in cfg and "expansion" in cfg[name]:
            cfg[name].expansion = latents * atoms / parameters.dim
    if "sae" in cfg.features.sets:
        cfg.sae.k = int(chosen)
