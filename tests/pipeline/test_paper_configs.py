"""The paper's settings, and the plan of a reproduction."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from mmmono.analyses import ANALYSES
from mmmono.commands.plan.rates import readable
from mmmono.commands.steps import analyses_of
from mmmono.pipeline.running import CONF, _leaf_paths
from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import snapshot
from tests.pipeline.test_sweeps import SHORT
from tests.rehearsal.commands import behind_make

PRESETS = sorted((CONF / "paper").glob("*.yaml"))


def composed(entrypoint: str, *overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entrypoint, list(overrides))


def command_of(preset: Path) -> tuple[str, list[str]]:
    """Entrypoint and overrides of the command in a preset's first lines."""
    match = re.search(r"python experiments/(\w+)\.py (\+paper=\w+(?: \w+\.\w+=\S+)*)", preset.read_text())
    assert match, preset
    return match[1], match[2].split()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_a_preset_composes_and_invents_no_setting(preset: Path) -> None:
    entrypoint, overrides = command_of(preset)
    assert overrides[0] == f"+paper={preset.stem}"
    cfg = composed(entrypoint, *overrides)
    assert not OmegaConf.missing_keys(cfg)
    choices = re.findall(r"override /(\w+): ([^#\n]+)", preset.read_text())
    plain = composed(entrypoint, *(f"{group}={option.strip().replace(' ', '')}" for group, option in choices))
    assert {".".join(path) for path in _leaf_paths(cfg)} == {".".join(path) for path in _leaf_paths(plain)}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_say_what_the_paper_says(preset: Path) -> None:
    entrypoint, overrides = command_of(preset)
    cfg = composed(entrypoint, *overrides)
    if preset.stem == "table1":
        assert (cfg.model.name, cfg.dataset._target_.rpartition(".")[2]) == ("clip_vit_h14", "COCO")
        assert cfg.partition.image_dominant + cfg.partition.text_dominant == 1024 - 44
        assert cfg.ablation.max_pairs == 10_000
        return
    model = "clip_vit_h14" if preset.stem == "figure10" else "clip_rn50"
    assert (cfg.model.name, cfg.dataset._target_.rpartition(".")[2]) == (model, "CC3M")
    assert cfg.dataset.split == "val"
    if "victim" in cfg:
        assert (cfg.victim.repeats, cfg.adversarial.runs) == (100, 5)
    if "partition" in cfg:
        assert cfg.partition.n_sigma == 1
    if "sae" in cfg:
        assert (cfg.sae.k, cfg.sae.expansion) == (32, 1)
    if "interpretability" in cfg:
        assert cfg.interpretability.m == 20
        assert cfg.embedder.image_model == "vit_base_patch16_224.augreg_in21k"


def test_the_command_line_has_the_last_word() -> None:
    cfg = composed(
        "mds", "+paper=figure4", "model=drawingclip", "dataset=openmoji", "features=raw", "partition.n_sigma=2"
    )
    assert (cfg.model.name, list(cfg.features.sets), cfg.partition.n_sigma) == ("drawingclip", ["raw"], 2)


def test_make_paper_uses_every_preset_and_the_plan_lists_every_step() -> None:
    declared = {(a.name, a.paper_setting.option) for a in ANALYSES if a.paper_setting is not None}
    assert {(command_of(preset)[0], preset.stem) for preset in PRESETS} == declared
    exact = behind_make(["paper", "MODEL=clip_rn50", "DATASET=cc3m", "COCO=/path/to/coco"])
    used = {(entry.entrypoint, o.removeprefix("+paper=")) for entry in exact for o in entry.overrides if "+paper" in o}
    assert used == declared
    assert [entry.entrypoint for entry in exact] == ["plan", *(a.name for a in analyses_of("paper")), "report"]


@pytest.mark.slow
def test_a_plan_computes_nothing_and_knows_what_is_there(command: Command, tmp_path: Path) -> None:
    root = f"artifacts={tmp_path}"
    settings = (root, *SHORT, "features=[raw,sae]", "features.k=2")
    steps = "plan.only=[mds,ablation]"
    before = snapshot(tmp_path)
    run = command("plan", *settings, steps)
    assert run.status == 0, run.err
    assert snapshot(tmp_path) == before
    assert "0 found" in run.out
    assert "dictionary sae: 16 features, 2 active" in run.out
    assert command("mds", *settings, "mds.min_pairs=3").status == 0
    before = snapshot(tmp_path)
    run = command("plan", *settings, steps, "mds.min_pairs=3")
    assert run.status == 0, run.err
    rows = {line.split("│")[2].strip(): line.split("│")[3].strip() for line in run.out.splitlines() if "│" in line}
    assert rows["features: 800 pairs × 16"] == "found"
    assert rows["dictionary sae"] == rows["results of mds"] == "found"
    assert rows["results of ablation"] == "will fail"
    assert "will fail: results of ablation (synthetic): dataset=synthetic has no labels" in run.out
    run = command("plan", *settings, steps, "mds.min_pairs=4")
    assert "│ results of mds" in run.out
    assert "1 to make" in run.out
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_the_full_reproduction_is_planned_without_a_model(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "none that anybody would accept")
    run = command("plan", "model=clip_rn50", "dataset=cc3m", "plan.exact=true", f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    assert "2905936 pairs × 1024" in run.out
    assert readable(2 * 2 * 2_905_936 * 1024) in run.out  # two modalities of float16
    assert "dictionary sae: 1024 features, 32 active" in run.out
    assert "on COCO, give its folder" in run.out
    assert list(tmp_path.rglob("features")) == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_any_option_of_a_group_goes_with_a_preset(preset: Path) -> None:
    """A preset's values must not stay behind in another option, which has no such setting."""
    entrypoint, _ = command_of(preset)
    groups = [group for group in re.findall(r"override /(\w+):", preset.read_text()) if group != "features"]
    options = {group: sorted(file.stem for file in (CONF / group).glob("*.yaml")) for group in groups}
    for place in range(max(map(len, options.values()), default=0)):  # of every group at once
        chosen = [f"{group}={names[place % len(names)]}" for group, names in options.items()]
        with_preset = composed(entrypoint, f"+paper={preset.stem}", *chosen)
        without = composed(entrypoint, *chosen)
        for group in groups:
            assert set(with_preset[group]) == set(without[group]), (group, chosen)
