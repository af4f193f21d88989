"""Settings of several entrypoints in one call of make."""

from pathlib import Path

import pytest

from mmmono.pipeline.running import CONF
from mmmono.pipeline.shared_settings import own_settings
from tests.pipeline.conftest import Command
from tests.pipeline.test_plan import use_hub
from tests.rehearsal.commands import behind_make

PAPER = ("MODEL=clip_rn50", "DATASET=cc3m", "COCO=/path/to/coco")


def used(*arguments: str) -> dict[str, list[str]]:
    """What each entrypoint behind `make` takes of its arguments, by name."""
    return {
        entry.entrypoint: own_settings(entry.entrypoint, entry.overrides, CONF, entry.variables["MMMONO_TOGETHER"])
        for entry in behind_make(arguments)
    }


def test_each_entrypoint_takes_the_settings_that_it_has() -> None:
    taken = used("section-2.1", "section-2.3", "ARGS=top_samples.m=5 certainty.n_halves=3 mds.min_pairs=4 seed=1")
    assert [o for o in taken["top_samples"] if "." in o] == ["top_samples.m=5", "mds.min_pairs=4"]
    assert [o for o in taken["certainty"] if "." in o] == ["certainty.n_halves=3", "mds.min_pairs=4"]
    assert [o for o in taken["mds"] if "." in o] == ["mds.min_pairs=4"]
    assert all("seed=1" in overrides for overrides in taken.values())


@pytest.mark.slow
def test_groups_and_settings_of_their_options_go_where_they_belong() -> None:
    settings = "embedder=clip victim=llava15 victim.repeats=3 judge=refusal_keywords sae.lr=1e-2 generator.steps=4"
    taken = used("section-3", "section-4", f"ARGS={settings}")
    assert "embedder=clip" in taken["interpretability"]
    assert not {"embedder=clip", "victim=llava15", "victim.repeats=3"} & set(taken["faithfulness"])
    assert {"victim=llava15", "victim.repeats=3", "judge=refusal_keywords"} <= set(taken["adversarial"])
    assert "sae.lr=1e-2" not in taken["adversarial"]  # its features are raw
    assert "sae.lr=1e-2" in taken["gender"]
    assert "generator.steps=4" in taken["text_to_image"]


@pytest.mark.slow
def test_presets_bring_groups_whose_settings_are_known_to_all() -> None:
    """victim.repeats is a setting of the paper's victim, not of the default one."""
    taken = used("paper", *PAPER, "ARGS=victim.repeats=3 generator.projected=true ablation.folds=2 top_samples.m=4")
    assert "victim.repeats=3" in taken["adversarial"]
    assert "generator.projected=true" in taken["text_to_image"]
    assert "ablation.folds=2" in taken["ablation"]
    for name in ("train", "mds", "certainty", "interpretability", "report"):
        assert not any(o.startswith(("victim", "generator", "ablation", "top_samples")) for o in taken[name]), name
    # The plan takes them all; those that it does not have itself with a plus.
    assert {"victim.repeats=3", "+ablation.folds=2", "+top_samples.m=4"} <= {
        o.replace("+victim", "victim") for o in taken["plan"]
    }


@pytest.mark.slow
def test_what_no_entrypoint_has_stays_and_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = used("section-2", "ARGS=top_samples.mm=5 certainty.halves=2")
    assert all({"top_samples.mm=5", "certainty.halves=2"} <= set(overrides) for overrides in taken.values())
    monkeypatch.setenv("MMMONO_TOGETHER", "mds top_samples")
    run = command("mds", f"artifacts={tmp_path}", "top_samples.mm=5")
    assert run.status == 1
    assert "no setting is called 'top_samples.mm', did you mean 'top_samples.m'?" in run.err


@pytest.mark.slow
def test_a_model_of_its_own_does_not_take_settings_of_the_other() -> None:
    given = (
        "MODEL=declip_rn50",
        "DATASET=cc3m",
        "EXACT=yes",
        "COCO=/path/to/coco",
        "ARGS=model.checkpoint=x.pth dataset.year=2014",
    )
    taken = used("section-2.1", "section-2.2", *given)
    assert "model.checkpoint=x.pth" in taken["mds"]
    assert "model.checkpoint=x.pth" not in taken["ablation"]
    assert "dataset.year=2014" in taken["ablation"]
    assert "dataset.year=2014" not in taken["certainty"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["section-2.1", "MODEL=clip_rn50", "DATASET=cc3m"], None),
        (["section-2.1", "MODEL=clip_rn50", "DATASET=cc3m", "FEATURES=[raw]"], "features=[raw]"),
        (["section-2.1", "EXACT=yes"], None),
        (["section-2.1"], None),  # those of its configuration
        (["demo"], None),
        (["appendix-a.1"], "features=[sae,ncl]"),
        (["section-4.1"], "features=sae"),
        (["section-4.3", "MODEL=clip_rn50", "DATASET=cc3m", "FEATURES=[raw,sae]"], "features=[raw,sae]"),
        (
            ["section-4", "MODEL=clip_rn50", "DATASET=cc3m", "FEATURES=sae"],
            None,
        ),  # Figure 10's own, in the last of three
    ],
)
def test_features_count_beside_the_papers_settings(arguments: list[str], expected: str | None) -> None:
    chosen = [o for o in behind_make(arguments)[-1].overrides if o.startswith("features=")]
    assert chosen == ([expected] if expected else [])
    if arguments[0] == "section-4":
        assert "features=sae" in behind_make(arguments)[0].overrides


def test_sweeps_switches_and_values_to_be_given_are_left_alone() -> None:
    arguments = [
        "-m",
        "features.k=8,16",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "+force=true",
        "+trainer.x=1",
    ]
    assert own_settings("train", arguments, CONF, "train sweep") == arguments
    assert own_settings("mds", ["dataset=webdataset", "dataset.shards=x", "top_samples.m=2"], CONF, "mds top_samples") == [
        "dataset=webdataset", "dataset.shards=x",
    ]  # fmt: skip
    assert own_settings("mds", ["top_samples.m=2"], CONF, "") == ["top_samples.m=2"]


@pytest.mark.slow
def test_a_plan_gives_each_step_the_settings_that_it_has(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table 1's partition has no n_sigma; its own settings change nothing elsewhere."""
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")  # where nothing answers
    (entry,) = behind_make(["plan", *PAPER, "ARGS=partition.n_sigma=0.5 ablation.folds=2 victim.repeats=3"])
    overrides = own_settings("plan", entry.overrides, CONF, entry.variables["MMMONO_TOGETHER"])
    run = command("plan", *overrides, f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    assert "results of ablation" in run.out
