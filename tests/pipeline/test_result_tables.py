"""Saved tables: one spelling of columns, and numbers where numbers are meant."""

import re
from pathlib import Path

import pandas as pd
import pytest

import mmmono.analyses
from mmmono.analyses import ANALYSES
from mmmono.core.versions import VERSIONS
from mmmono.pipeline.analysis import Analysis
from tests.pipeline.conftest import Command, newest

SMALL = (
    "dataset=synthetic", "dataset.pairs=600", "dataset.dim=16", "features=[raw,sae]", "features.k=2",
    "trainer=cpu", "trainer.max_steps=20", "trainer.min_steps=0", "trainer.val_check_interval=10",
    "training.snapshot_every=null", "mds.min_pairs=3",
)  # fmt: skip
SETTINGS = {
    "mds": (),
    "certainty": (
        "certainty.n_permutations=100", "certainty.n_bootstrap=20", "certainty.n_halves=2",
    ),
    "faithfulness": (),
    "robustness": (),
    "consequences": ("consequences.n_random=2", "consequences.shares=[1.0]"),
    "steering": ("steering.queries=10", "steering.strengths=[1.0]", "steering.per_class=0"),
    "sharedness": (),
}  # fmt: skip
# Columns that hold words; every other column holds numbers. Classes are columns too: ImgD, TextD, CrossD.
WORDS = {"feature_set", "class", "samples", "space", "aim", "change", "of", "like", "measure", "label", "query"}
SPELLING = re.compile(r"(ImgD|TextD|CrossD|[a-z][a-z0-9]*)(_[a-z0-9]+)*")


def test_columns_have_one_spelling_and_hold_numbers(command: Command, tmp_path: Path) -> None:
    for analysis, settings in SETTINGS.items():
        run = command(analysis, f"artifacts={tmp_path}", *SMALL, *settings)
        assert run.status == 0, run.err
    tables = sorted((tmp_path / "results").glob("*/*.parquet"))
    assert len(tables) >= 6
    for file in tables:
        for column, values in pd.read_parquet(file).items():
            assert SPELLING.fullmatch(str(column)), f"{file.name}: {column}"
            numeric = pd.api.types.is_numeric_dtype(values) or values.isna().all()
            assert numeric or column in WORDS, f"{file.name}: {column} holds {values.iloc[0]!r}"


def test_every_analysis_reads_one_partition(command: Command, tmp_path: Path) -> None:
    """The first analysis scores the features, once for each feature set; the others find what it left."""
    for analysis in ("mds", "certainty"):
        assert command(analysis, f"artifacts={tmp_path}", *SMALL, *SETTINGS[analysis]).status == 0
        found = sorted((tmp_path / "partitions").glob("*/partition.parquet"))
        assert [file.parent.name.partition("-")[0] for file in found] == ["raw", "sae"]
        times = [file.stat().st_mtime_ns for file in found]
        if analysis == "mds":
            first = times
    assert times == first
    scores = pd.read_parquet(next((tmp_path / "results").glob("mds-*/scores.parquet")))
    for file in found:
        mine = scores[scores.feature_set == file.parent.name.partition("-")[0]]
        assert mine.mds.tolist() == pd.read_parquet(file).scores.tolist()
        assert mine["class"].tolist() == pd.read_parquet(file)["class"].tolist()
    assert command("mds", f"artifacts={tmp_path}", *SMALL, "+force=true").status == 0  # scores anew as well
    assert all(file.stat().st_mtime_ns > before for file, before in zip(found, first, strict=True))
    assert command("mds", f"artifacts={tmp_path}", *SMALL, "partition=margin").status == 0  # other classes
    assert len(list((tmp_path / "partitions").glob("*/partition.parquet"))) == 4


def test_every_table_of_features_has_both_axes(command: Command, tmp_path: Path) -> None:
    """Sharedness is measured once, and is the same number beside R(d) in each analysis that shows features."""
    analyses = ("mds", "certainty", "sharedness")
    tables = {}
    for analysis in analyses:
        assert command(analysis, f"artifacts={tmp_path}", *SMALL, *SETTINGS[analysis]).status == 0
        tables[analysis] = pd.read_parquet(next((tmp_path / "results").glob(f"{analysis}-*/scores.parquet")))
        tables[analysis] = (
            tables[analysis].rename(columns={"q_value": "sharedness_q_value"}, errors="ignore")
            if analysis == "sharedness"
            else tables[analysis]
        )
        times = {file: file.stat().st_mtime_ns for file in (tmp_path / "sharedness").glob("*/sharedness.parquet")}
        assert len(times) == 2  # one for each feature set
        if analysis == "mds":
            first = times
    assert times == first
    axes = ["feature_set", "feature", "class", "mds", "sharedness", "sharedness_q_value"]
    for analysis in analyses[1:]:
        pd.testing.assert_frame_equal(tables[analysis][axes], tables["mds"][axes])
    summary = pd.read_parquet(next((tmp_path / "results").glob("mds-*/summary.parquet")))
    counted = pd.read_parquet(next((tmp_path / "results").glob("sharedness-*/summary.parquet")))
    for row in counted[counted["class"] != "live"].itertuples():
        mine = summary[summary.feature_set == row.feature_set].iloc[0]
        assert mine[f"{row[2]}_shared"] == row.shared


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_an_analysis_that_reads_sharedness_says_so(analysis: Analysis) -> None:
    folder = Path(mmmono.analyses.__file__).parent / analysis.name
    calls = any("feature_sharedness(" in file.read_text() for file in folder.glob("*.py"))
    assert ("sharedness" in analysis.reads) == calls


def test_a_new_version_of_sharedness_makes_results_anew(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = (f"artifacts={tmp_path}", *SMALL)
    assert command("mds", *mine).status == 0
    before = newest(tmp_path, "mds")
    monkeypatch.setitem(VERSIONS, "sharedness", VERSIONS["sharedness"] + 1)  # type: ignore[arg-type]
    assert command("report", *mine).status == 0
    page = (newest(tmp_path, "report") / "index.html").read_text()
    assert "Moments of the scores" not in page  # those of the earlier version are not shown
    assert command("mds", *mine).status == 0
    assert newest(tmp_path, "mds") != before
    assert command("report", *mine).status == 0
    assert "Moments of the scores" in (newest(tmp_path, "report") / "index.html").read_text()
