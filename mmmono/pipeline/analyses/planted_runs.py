"""Settings of the synthetic data that `experiments/validate.py` compares, each varying one parameter from the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.features.planted import KINDS, PlantedKnobs

PLANTED = tuple(field.name for field in fields(PlantedKnobs) if field.name != "seed")


@dataclass(frozen=True)
class Run:
    """One setting of the synthetic data with one seed.

    Attributes:
        knob: the varied parameter; empty for the base setting, `equal_gains` if all gains are equal.
        value: the parameter's value; None for the base setting and `equal_gains`.
        seed: seed of concepts, codes and training.
        cfg: the whole configuration.
    """

    knob: str
    value: float | None
    seed: int
    cfg: DictConfig

    @property
    def title(self) -> str:
        """Name of the run for the terminal."""
        return f"{self.knob or 'base'}{'' if self.value is None else f' {self.value:g}'}, seed {self.seed}"


def runs(cfg: DictConfig) -> list[Run]:
    """List the runs: the base setting, every value of every parameter, and equal gains, each with all its seeds.

    Raises:
        ConfigError: a parameter is unknown or its value invalid; raised before any data is made.
    """
    settings = cfg.validate
    _check(settings)
    turns: list[tuple[str, float | None]] = [("", None)]
    if not settings.quick:
        turns += [(knob, value) for knob, values in settings.knobs.items() for value in values]
    found = [Run(knob, value, s, turned(cfg, knob, value, s)) for knob, value in turns for s in range(settings.seeds)]
    if not settings.quick:
        found += [Run("equal_gains", None, s, _equal_gains(cfg, s)) for s in range(settings.equal_gains.seeds)]
    return found


def base_values(cfg: DictConfig) -> dict[str, float]:
    """Value of each varied parameter in the base setting."""
    return {knob: KNOBS[knob].base(cfg) for knob in ({} if cfg.validate.quick else cfg.validate.knobs)}


def turned(cfg: DictConfig, knob: str, value: float | None, seed: int) -> DictConfig:
    """Set one parameter and the seed; scale the dictionaries: k to the active concepts, width to all concepts."""
    result = OmegaConf.merge(cfg, {"seed": seed, "dataset": {"seed": seed}})
    assert isinstance(result, DictConfig)
    if knob in KNOBS and value is not None:
        KNOBS[knob].turn(result, value)
    _fit_dictionaries(result, value if knob == "k" else None)
    return result


@dataclass(frozen=True)
class _Knob:
    base: Callable[[DictConfig], float]
    turn: Callable[[DictConfig, Any], None]


def _own(name: str) -> _Knob:
    return _Knob(lambda cfg: float(cfg.dataset[name]), lambda cfg, value: OmegaConf.update(cfg.dataset, name, value))


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
            f"validate.knobs.shared_share={value} is a share of the concepts: give more than 0, less than 1"
        )
    data, atoms = cfg.dataset, _atoms(cfg)
    image = data.image_atoms / (data.image_atoms + data.text_atoms)
    data.shared_atoms = round(atoms * value)
    data.image_atoms = round((atoms - data.shared_atoms) * image)
    data.text_atoms = atoms - data.shared_atoms - data.image_atoms


KNOBS: Mapping[str, _Knob] = {
    **{name: _own(name) for name in PLANTED},
    "superposition": _Knob(lambda cfg: _atoms(cfg) / cfg.dataset.dim, _superpose),
    "shared_share": _Knob(lambda cfg: cfg.dataset.shared_atoms / _atoms(cfg), _share),
    "latents": _Knob(
        lambda cfg: float(cfg.validate.latents), lambda cfg, value: OmegaConf.update(cfg.validate, "latents", value)
    ),
    "k": _Knob(lambda cfg: float(_active(cfg)), lambda cfg, value: None),
}


def _active(cfg: DictConfig) -> int:
    return max(1, round(cfg.dataset.active))


def _equal_gains(cfg: DictConfig, seed: int) -> DictConfig:
    """Set the gains of all shared concepts to 1, so that the permutation null holds for them."""
    result = turned(cfg, "", None, seed)
    result.dataset = OmegaConf.merge(
        result.dataset, cfg.validate.equal_gains.dataset, {"gain_spread": 0.0, "seed": seed}
    )
    _fit_dictionaries(result, None)
    # The permutation null is tested on the true codes and on the latents of the SAE.
    result.features.sets = {name: made for name, made in result.features.sets.items() if name == "sae"}
    return result


def _fit_dictionaries(cfg: DictConfig, k: float | None) -> None:
    knobs = PlantedKnobs(**{name: cfg.dataset[name] for name in PLANTED}, seed=cfg.dataset.seed)
    atoms, latents = _atoms(cfg), cfg.validate.latents
    if not latents > 0:
        raise ConfigError(f"validate.latents={latents} leaves no latent: give a positive number of them a concept")
    chosen = _active(cfg) if k is None else k
    if chosen != int(chosen) or not 1 <= chosen <= min(atoms, round(latents * atoms)):
        raise ConfigError(
            f"k={chosen} active latents, but only {atoms} concepts are planted: give a whole number up to that"
        )
    for name in cfg.features.sets:
        if name in cfg and "expansion" in cfg[name]:
            cfg[name].expansion = latents * atoms / knobs.dim
    if "sae" in cfg.features.sets:
        cfg.sae.k = int(chosen)


def _check(settings: DictConfig) -> None:
    if settings.seeds < 1 or settings.equal_gains.seeds < 1:
        raise ConfigError(
            f"validate.seeds={min(settings.seeds, settings.equal_gains.seeds)}: give at least 1, 3 for intervals"
        )
    if wrong := [level for level in (settings.fdr, *settings.equal_gains.levels) if not 0 < level < 1]:
        raise ConfigError(f"a false discovery rate of {wrong[0]} is no rate: give validate.fdr and levels in (0, 1)")
    for knob, values in settings.knobs.items():
        if knob not in KNOBS:
            raise ConfigError(f"validate.knobs names {knob!r}: choose from {', '.join(KNOBS)}")
        if wrong := [value for value in values if not isinstance(value, int | float)]:
            raise ConfigError(f"validate.knobs.{knob}: {wrong[0]!r} is not a number")
