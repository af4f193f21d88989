"""The whole pipeline on synthetic concepts: a small fixed instance, and its bad input."""

from pathlib import Path

import pandas as pd
import pytest

from mmmono.analyses.validate import VALIDATE
from mmmono.pipeline.analysis import shown_figures
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import only, snapshot


@pytest.mark.slow
def test_the_sae_finds_the_synthetic_concepts(command: Command, tmp_path: Path) -> None:
    """The easy regime: little noise, atoms ≤ 2 d, enough pairs."""
    arguments = (f"artifacts={tmp_path}", "validate.seeds=1", "validate.quick=true", "features=[raw,sae]")
    run = command("validate", *arguments)
    assert run.status == 0, run.err
    rows = pd.read_parquet(only(tmp_path / "results", "validate-*") / "validation.parquet").set_index("feature_set")
    sae, raw = rows.loc["sae"], rows.loc["raw"]
    assert sae.max_cosine >= 0.95
    assert 0.95 <= sae.matched_cosine <= sae.max_cosine
    assert sae.auroc_image >= 0.99
    assert sae.auroc_text >= 0.99
    assert sae.rank_correlation > 0.9
    assert sae.accuracy_sigma > 0.9
    assert sae.accuracy_margin > 0.9
    assert raw.auroc_text < 0.8
    assert sae.correlation > raw.correlation + 0.4
    before = snapshot(tmp_path)
    assert command("validate", *arguments).status == 0
    assert snapshot(tmp_path) == before
    # Other entrypoints run on the same pairs.
    mds = command("mds", f"artifacts={tmp_path}", "dataset=synthetic", "features=raw")
    assert mds.status == 0, mds.err


SHORT = ("trainer.max_steps=5", "trainer.min_steps=5", "trainer.val_check_interval=5", "dataset.pairs=1000")


@pytest.mark.slow
def test_every_table_and_figure(command: Command, tmp_path: Path) -> None:
    """Trainings too short to find anything, but all of them."""
    left_out = ("noise", "active", "latents", "pairs", "tail", "parents", "lopsided")
    run = command(
        "validate", f"artifacts={tmp_path}", *SHORT, "training.batch_size=64", "features=[raw,sae]", "validate.seeds=2",
        "validate.jobs=1", "validate.n_permutations=200", "validate.equal_gains.seeds=2",
        *(f"~validate.parameters.{name}" for name in left_out),
        "validate.parameters.gap=[0.8]", "validate.parameters.k=[3]", "validate.parameters.superposition=[0.75]",
        "validate.parameters.shared_share=[0.5]", "validate.parameters.group_size=[2]", "validate.parameters.dense=[0.1]",
    )  # fmt: skip
    assert run.status == 0, run.err
    results = only(tmp_path / "results", "validate-*")
    validation, summary, readings, found = (
        pd.read_parquet(results / f"{name}.parquet") for name in ("validation", "summary", "readings", "discoveries")
    )
    assert {"parameter", "value", "seed", "feature_set"} <= set(validation.columns)
    assert len(validation) == 7 * 2 * 2  # settings, seeds, feature sets
    for row in summary[summary.measure == "auroc_text"].itertuples():
        same = validation.parameter.eq(row.parameter) & validation.feature_set.eq(row.feature_set)
        assert row.mean == pytest.approx(validation[same].auroc_text.mean())
        assert row.mean_low <= row.mean <= row.mean_high
    assert {"mds.undefined=skip", "mds.undefined=half", "energy ratio", "AUROC"} < set(readings.reading)
    centered = readings[readings.reading == "sae.center=per_modality"]
    assert set(centered.parameter) == {"", "gap"}
    default = readings[readings.reading.eq("mds.undefined=skip")].set_index(["parameter", "seed", "feature_set"])
    same = validation.set_index(["parameter", "seed", "feature_set"])
    assert default.accuracy.equals(same.accuracy_sigma)
    assert set(found.feature_set) == {"concepts", "sae"}
    assert (found.false_discoveries <= found.discoveries).all()
    own = found[found.feature_set.eq("concepts") & found.level.eq(0.2) & found.rule.eq("null")]
    assert (own.discoveries - own.false_discoveries == 48).all()  # image-only and text-only concepts are all found
    figures = {file.stem for file in results.glob("*.png")}
    assert figures == {file.stem for file in results.glob("*.pdf")}
    statements = (
        "codes", "directions", "energy", "false_discoveries", "gains", "partition", "readings", "separation", "shared",
    )  # fmt: skip
    assert figures == {"validation", *(f"validation-{statement}" for statement in statements)}
    result = Result(results, {})
    assert {name for name, _ in VALIDATE.draw(result)} == figures
    assert {file.stem for file, _ in shown_figures(VALIDATE, result)} == figures
    base = pd.read_parquet(results / "parameters.parquet").set_index("parameter").base
    assert base.to_dict() == pytest.approx(
        {"gap": 0.3, "superposition": 1.5, "k": 6, "shared_share": 1 / 3, "group_size": 1, "dense": 0}
    )
    stores = {path.name for path in (tmp_path / "features").glob("synthetic-*") if path.is_dir()}
    assert len(stores) == 2 * 7  # another k makes no new data


def test_sets_without_an_sae(command: Command, tmp_path: Path) -> None:
    run = command(
        "validate", f"artifacts={tmp_path}", *SHORT, "training.batch_size=64", "features=[raw,ncl]", "validate.seeds=1",
        "validate.quick=true",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert "ncl" in run.out


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("validate", ["dataset=openmoji"], "validation needs to know the answer: set dataset=synthetic, not openmoji"),
        ("validate", ["+validate.parameters.nois=[1]"], "validate.parameters names 'nois'"),
        ("validate", ["dataset.shared_atoms=0"], "dataset.shared_atoms=0: synthetic pairs need at least one"),
        (
            "validate",
            ["validate.parameters.superposition=[0.001]"],
            "dataset.image_atoms=0: synthetic pairs need at least one",
        ),
        ("validate", ["validate.parameters.k=[97]"], "k=97 active latents, but the data has only 96 concepts"),
        ("validate", ["validate.parameters.k=[2.5]"], "k=2.5 active latents, but the data has only 96 concepts"),
        ("validate", ["dataset.active=65"], "dataset.active=65 concepts a sample, but a modality has only 64 atoms"),
        (
            "validate",
            ["+validate.parameters.correlation=[1.2]"],
            "dataset.correlation=1.2 is a probability: give 0 to 1",
        ),
        (
            "validate",
            ["validate.parameters.shared_share=[1.5]"],
            "validate.parameters.shared_share=1.5 is a share of the concepts",
        ),
        ("validate", ["validate.parameters.pairs=[few]"], "validate.parameters.pairs: 'few' is not a number"),
        ("validate", ["validate.equal_gains.levels=[5]"], "validate.equal_gains.levels=5 is no false discovery rate"),
        ("validate", ["validate.fdr=0"], "validate.fdr=0 is no false discovery rate: give a rate between 0 and 1"),
        ("validate", ["validate.equal_gains.seeds=0"], "validate.equal_gains.seeds=0: give at least 1"),
        ("validate", ["validate.latents=0"], "validate.latents=0 leaves no latent"),
        ("validate", ["validate.seeds=0"], "validate.seeds=0: give at least 1, 3 for intervals"),
        (
            "mds",
            ["dataset=synthetic", "dataset.pairs=500", "features=raw", "partition=margin", "partition.margin=0.6"],
            "partition.margin=0.6 must lie in [0, 0.5)",
        ),
        ("mds", ["dataset=synthetic", "dataset.limit=9"], "dataset.limit has no meaning for dataset=synthetic"),
        ("extract", ["dataset=synthetic", "dataset.correlation=-1"], "dataset.correlation=-1"),
        ("top_samples", ["dataset=synthetic", "features=raw"], "dataset=synthetic has embeddings alone, no images"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, tmp_path: Path, name: str, overrides: list[str], message: str
) -> None:
    run = command(name, f"artifacts={tmp_path}", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1
    assert message in lines[0]
