"""What a report or the explorer was asked for, and the commands that make its missing parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import join, quote
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.settings import CONF
from mmmono.pipeline.shared_settings import choices_of, own_options, settings_it_has, settings_of_own_file

KNOWN = ("model=", "dataset=", "features=", "hydra")  # overrides that are no further settings
DATASET = "openmoji"  # of the Makefile


@dataclass(frozen=True)
class Selection:
    """Model, dataset, feature sets and settings of a report.

    Attributes:
        groups: the model and the dataset, where they are not the Makefile's.
        features: the feature sets, if the report was asked for some; empty if they are those of its configuration.
        settings: all other overrides.
    """

    groups: Mapping[str, str]
    features: Sequence[str] = ()
    settings: Sequence[str] = ()

    @classmethod
    def given(cls, feature_sets: Sequence[str], page: str = "report") -> Selection:
        """Read the selection from the command line of this run, and from its file (`-cn`); nothing is outside of a command.

        Args:
            feature_sets: those of the run.
            page: name of its entrypoint.
        """
        if not (HydraConfig.initialized() and GlobalHydra().is_initialized()):
            return cls({})
        hydra = HydraConfig.get()
        overrides = [*settings_of_own_file(page, CONF), *hydra.overrides.task]
        model, dataset = (hydra.runtime.choices[group] for group in ("model", "dataset"))
        usual = {"model": choices_of(page, [*own_options(), f"dataset={dataset}"], CONF)["model"], "dataset": DATASET}
        groups = {"model": model, "dataset": dataset}
        return cls(
            {group: option for group, option in groups.items() if option != usual[group]},
            feature_sets if any(override.startswith("features=") for override in overrides) else (),
            [*own_options(), *(override for override in overrides if not override.startswith(KNOWN))],
        )

    def command(self, analysis: Analysis, features: Sequence[str] = ()) -> str:
        """Return the command that makes results of an analysis which belong to the report.

        Args:
            analysis: the analysis.
            features: feature sets to make; by default those that it is made of anyway, unless the report lacks some of them.
        """
        chosen = features or self._features(analysis)
        if analysis.targets:
            return f"{analysis.command}{self.arguments(analysis.name, chosen)}"
        sets = [f"features={_listed(chosen)}"] if chosen else []
        given = [*self._groups, *sets, *self._settings_of(analysis.name, chosen)]
        return analysis.command + "".join(f" {join([one])}" for one in given)

    def arguments(self, entrypoint: str, features: Sequence[str] = ()) -> str:
        """Return the arguments of a `make` target that select this model and dataset, feature sets, and the settings.

        Args:
            entrypoint: that the target runs; settings that it does not have are left out.
            features: the feature sets; by default those that the target takes.
        """
        chosen = [f" {group.upper()}={option}" for group, option in self.groups.items()]
        chosen += [f" FEATURES={quote(_listed(features))}"] if features else []
        settings = self._settings_of(entrypoint, features)
        return "".join(chosen) + (f" ARGS={make_words(settings)}" if settings else "")

    @property
    def _groups(self) -> list[str]:
        return [f"{group}={option}" for group, option in self.groups.items()]

    def _settings_of(self, entrypoint: str, features: Sequence[str]) -> list[str]:
        """The settings that an entrypoint has; all of them outside of a command."""
        if not self.settings or not GlobalHydra.instance().is_initialized():  # nothing to compose configurations for
            return list(self.settings)
        sets = [f"features={_listed(features)}"] if features else []
        kept = settings_it_has(entrypoint, [*self._groups, *sets, *self.settings], CONF)
        return [setting for setting in self.settings if setting in kept]

    def _features(self, analysis: Analysis) -> Sequence[str]:
        """The selected feature sets, if results of those that the analysis takes by default do not belong."""
        if not self.features or not analysis.of_features or analysis.compares_own_sets:
            return ()
        return () if default_sets(analysis) <= set(self.features) else self.features


def make_words(arguments: Sequence[str]) -> str:
    """Value of a variable of make, as typed in a shell, that make's own shell splits into these arguments again."""
    return quote(" ".join(map(quote, arguments)).replace("$", "$$"))


def default_sets(analysis: Analysis) -> set[str]:
    """Names of the feature sets that an analysis' command takes if none are given: the analysis', or its configuration's."""
    chosen = OmegaConf.create(analysis.features) if analysis.features.startswith("[") else analysis.features
    found = chosen or _configured(analysis.name)
    return {found} if isinstance(found, str) else {str(name) for name in found}


def _configured(name: str) -> Any:
    """Option of the group `features` in the defaults of a configuration, or of those that it builds on."""
    found: Any = ()
    for entry in OmegaConf.select(OmegaConf.load(CONF / f"{name}.yaml"), "defaults", default=[]):
        if isinstance(entry, str):
            found = found if entry == "_self_" else _configured(entry.strip("/").partition("@")[0]) or found
            continue
        [(key, option)] = entry.items()
        group = str(key).removeprefix("override ")
        if group == "features":
            found = option
        elif isinstance(option, str):  # an option may bring a whole configuration
            found = _configured(f"{group}/{option}") or found
    return found


def _listed(features: Sequence[str]) -> str:
    return features[0] if len(features) == 1 else f"[{','.join(features)}]"
