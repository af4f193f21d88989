"""The whole pipeline on planted concepts: a small fixed instance, and its bad input."""

from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import only, snapshot


def test_the_sae_finds_what_was_planted(command: Command, tmp_path: Path) -> None:
    """The easy regime: little noise, atoms ≤ 2 d, enough pairs."""
    arguments = (f"artifacts={tmp_path}", "validate.seeds=1", "validate.quick=true", "features=[raw,sae]")
    run = command("validate", *arguments)
    assert run.status == 0, run.err
    rows = pd.read_parquet(only(tmp_path / "results", "validation-*") / "validation.parquet").set_index("feature_set")
    sae, raw = rows.loc["sae"], rows.loc["raw"]
    assert sae.max_cosine >= 0.95
    assert sae.auroc_image >= 0.99
    assert sae.auroc_text >= 0.99
    assert sae.rank_correlation > 0.9
    assert sae.accuracy_sigma > 0.9
    assert sae.false_discoveries <= 0.1
    assert raw.auroc_text < 0.8
    assert sae.correlation > raw.correlation + 0.4
    before = snapshot(tmp_path)
    assert command("validate", *arguments).status == 0
    assert snapshot(tmp_path) == before
    # Other entrypoints run on the same pairs.
    mds = command("mds", f"artifacts={tmp_path}", "dataset=planted", "features=raw")
    assert mds.status == 0, mds.err


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("validate", ["dataset=openmoji"], "validation needs to know the answer: set dataset=planted, not openmoji"),
        ("validate", ["+validate.knobs.nois=[1]"], "validate.knobs names 'nois'"),
        ("validate", ["dataset.shared_atoms=0"], "dataset.shared_atoms=0: planted pairs need at least one"),
        ("mds", ["dataset=planted", "dataset.limit=9"], "dataset.limit has no meaning for dataset=planted"),
        ("extract", ["dataset=planted", "dataset.correlation=-1"], "dataset.correlation=-1"),
        ("top_samples", ["dataset=planted", "features=raw"], "dataset=planted has embeddings alone, no pictures"),
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
