"""A missing package of an extra is one line that names it, and nothing else of mmmono needs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmmono.case_studies.adversarial.judges import OpenAICompatible
from mmmono.case_studies.generators.diffusers_pipelines import load_pipeline
from mmmono.commands.dashboard import save_dashboard
from mmmono.core.errors import ConfigError, DataError, MmmonoError, ModelError
from mmmono.core.extras import EXTRAS, is_installed, need
from mmmono.data import OpenMojiPairs
from mmmono.features import FeatureStore, RawFeatures, feature_set
from mmmono.features.selection import FeatureView
from mmmono.pipeline.generators import Diffusers
from mmmono.pipeline.tracking import TensorBoard, WandB
from tests.features.test_store import write_like_clip_retrieval
from tests.pipeline.conftest import REPOSITORY

# What Python itself does not import: extras that Hydra and mmmono find in other ways.
FOUND_BY_NAME = {"hydra-joblib-launcher", "hydra-submitit-launcher", "hydra-optuna-sweeper", "sqlalchemy"}

IMPORT_ALL = """
import importlib, pkgutil, sys
from mmmono.core.extras import EXTRAS
sys.modules.update(dict.fromkeys(EXTRAS))  # None: importing it fails
import mmmono
names = [module.name for module in pkgutil.walk_packages(mmmono.__path__, "mmmono.")]
compiled = {f"mmmono.core.{name}" for name in ("kernels", "largest", "nested_targets", "sparse_draws")}  # by numba
for name in set(names) - compiled:
    importlib.import_module(name)
assert "sentence_transformers" not in sys.modules, "slow to import, and few need it"
print(len(names))
"""


def test_pyproject_sorts_packages_into_the_extras_that_messages_name() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {
        requirement.split("=")[0].split(">")[0].split("<")[0]: name
        for name, requirements in extras.items()
        for requirement in requirements
        if name not in ("all", "dev", "docs")
    }
    mapped = {package.replace("_", "-"): extra for package, extra in EXTRAS.items()}
    assert {package: extra for package, extra in declared.items() if package not in FOUND_BY_NAME} == mapped
    assert extras["all"] == [f"mmmono[{','.join(sorted(set(declared.values())))}]"]


@pytest.mark.parametrize(
    ("package", "extra", "error", "use"),
    [
        ("resvg_py", "demo", DataError, OpenMojiPairs),
        ("diffusers", "generation", ConfigError, lambda: load_pipeline("Pipeline", SimpleNamespace(), "cpu")),
        ("diffusers", "generation", ConfigError, lambda: Diffusers.check(SimpleNamespace(), SimpleNamespace())),  # type: ignore[arg-type]
        (
            "openai",
            "judge",
            ConfigError,
            lambda: OpenAICompatible("m", "{answer}", "A_KEY", "A_URL", "http://localhost"),
        ),
        ("tensorboard", "tensorboard", ConfigError, lambda: TensorBoard().start(OmegaConf.create(), "mds")),
        ("wandb", "wandb", ConfigError, lambda: WandB("project").start(OmegaConf.create(), "mds")),
        ("wandb_workspaces", "wandb", ConfigError, lambda: save_dashboard(OmegaConf.create())),
        ("llvmlite", "fast", ModelError, lambda: need("the fast way", "numba", "llvmlite", error=ModelError)),
    ],
)
def test_a_missing_package_is_one_line_that_names_it_and_its_extra(
    package: str, extra: str, error: type[MmmonoError], use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in EXTRAS:
        if other != package and find_spec(other) is None:
            pytest.skip(f"{other} is not installed")
    monkeypatch.setenv("A_KEY", "sk-test")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(error) as raised:
        use()
    message = str(raised.value)
    name = package.replace("_", "-")
    assert message.endswith(f" needs the package {name}: install the {extra} extra, pip install 'mmmono[{extra}]'")
    assert "\n" not in message


def test_without_the_compiler_pytorch_makes_the_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_set, "WORTH_COMPILING", 0)
    everything = write_like_clip_retrieval(tmp_path, [50], dtype="float32")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not is_installed("numba")
    blocks = list(feature_set.activations(FeatureView(FeatureStore(tmp_path)), RawFeatures(5), normalize=False))
    np.testing.assert_array_equal(np.concatenate([block.image_rows.numpy() for block in blocks]), everything[0])  # type: ignore[union-attr]


@pytest.mark.slow
def test_all_of_mmmono_imports_without_any_extra() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) > 100
