"""The analysis `concepts` on a store whose labels some dimensions show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import average_precision_score

from mmmono.analyses.concepts import CONCEPTS, Settings
from mmmono.analyses.concepts.analysis import CONTROL, _add_gain
from mmmono.interpretability.label_scores import chance_precision
from mmmono.reporting.result import Result
from tests.pipeline.conftest import newest, run_entrypoint, saved_rows

PAIRS, DIM, LABELS = 900, 8, ("bird", "cat", "dog")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dimension l is large for label l, and very negative for the last one; each group has three pairs."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, PAIRS // 3).repeat(3)
    for prefix in ("img_emb", "text_emb"):
        values = rng.normal(size=(PAIRS, DIM))
        values[np.arange(PAIRS), label] += np.where(label == 2, -4, 4)
        (folder / prefix).mkdir()
        np.save(folder / prefix / f"{prefix}_0.npy", values.astype(np.float32))
    (folder / "metadata").mkdir()
    names = ["", *(LABELS[i] for i in label[1:])]  # a pair may have none
    frame = pd.DataFrame(
        {"key": [str(i) for i in range(PAIRS)], "group": [str(i // 3) for i in range(PAIRS)], "kind": names}
    )
    frame.to_parquet(folder / "metadata" / "metadata_0.parquet")
    return folder


def made(store: Path, *more: str) -> Path:
    root = store / "artifacts"
    settings = [
        "dataset=store",
        f"dataset.path={store}",
        "model.name=mine",
        "features.normalize=false",
        "dataset.label=kind",
    ]
    assert run_entrypoint("concepts", f"artifacts={root}", *settings, "features=raw", *more) == 0
    return newest(root, "concepts")


def test_each_label_gets_the_dimension_that_shows_it_tested_on_other_pairs(store: Path) -> None:
    found = made(store, "concepts.k=10")
    rows = [row for row in saved_rows(found, "labels") if row["feature_set"] == "raw"]
    assert [(row["samples"], row["label"], row["feature"]) for row in rows] == [
        (samples, label, i) for samples in ("image", "text") for i, label in enumerate(LABELS)
    ]
    assert all(row["ap"] > 0.9 for row in rows)
    assert sum(row["count"] for row in rows[:3]) < 0.35 * PAIRS / 3  # one pair a group, of the split val
    count = sum(row["count"] for row in rows[:3])
    assert [row["chance"] for row in rows[:3]] == [chance_precision(row["count"], count) for row in rows[:3]]
    summary = {(row["feature_set"], row["samples"]): row for row in saved_rows(found, "summary")}
    raw, control = summary["raw", "image"], summary["random directions", "image"]
    assert raw["covered"] == 3
    assert raw["ap"] > control["ap"]
    assert 0 <= raw["ap_low"] <= raw["ap"] <= raw["ap_high"] <= 1
    random = [
        row["ap"]
        for row in saved_rows(found, "labels")
        if (row["feature_set"], row["samples"]) == ("random directions", "image")
    ]
    gains = [row["ap"] - other for row, other in zip(rows[:3], random, strict=True)]
    interval = ttest_1samp(gains, 0).confidence_interval()
    assert (raw["gain"], raw["gain_low"], raw["gain_high"]) == pytest.approx((np.mean(gains), *interval))
    assert control["gain"] is None
    pure = [row for row in saved_rows(found, "purity") if row["feature_set"] == "raw" and row["samples"] == "text"]
    assert [row["purity"] for row in pure[:3]] == [1, 1, 1]
    assert [row["label"] for row in pure[:3]] == list(LABELS)
    assert all(row["purity"] < 0.9 for row in pure[3:] if row["purity"] is not None)
    result = Result(found, {"concepts": {"k": 10, "covered": 0.5}, "label": "kind"})
    first = CONCEPTS.tables[0].rows(result)[0]
    assert first["covered"] == "3 of 3"
    assert f"of {raw['scored']} features" in first["purity"]
    assert CONCEPTS.tables[1].rows(result)[0]["raw"].startswith(f"{rows[0]['ap']:.3f} (0 ")
    assert (found / "concepts.png").exists()


def test_what_has_no_labels_cannot_be_scored(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["dataset=store", f"dataset.path={store}", "model.name=mine", "features=raw", f"artifacts={tmp_path}"]
    for more, message in [
        (["dataset.label=null"], "has no labels to score features by"),
        (["dataset.label=color"], "dataset.label=color is no label of these pairs"),
        (["dataset.label=kind", "concepts.min_groups=90"], "has 0 values with concepts.min_groups=90"),
    ]:
        assert run_entrypoint("concepts", *given, *more) == 1
        assert message in capsys.readouterr().err


def test_a_label_that_most_pairs_have_is_not_covered_by_a_feature_that_knows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels that no dimension shows: a random order has an average precision of .8 for one that .8 of pairs have."""
    rng = np.random.default_rng(0)
    for side in ("image", "text"):
        np.save(tmp_path / f"{side}.npy", rng.normal(size=(400, 8)).astype(np.float32))
    kinds = rng.permutation(["most"] * 320 + ["some"] * 77 + ["rare"] * 3)
    pd.DataFrame({"key": range(400), "kind": kinds}).to_csv(tmp_path / "pairs.csv", index=False)
    given = [
        f"artifacts={tmp_path}", "dataset=store", f"dataset.image={tmp_path}/image.npy",
        f"dataset.text={tmp_path}/text.npy", f"dataset.metadata={tmp_path}/pairs.csv", "model.name=mine", "features=raw",
    ]  # fmt: skip
    assert run_entrypoint("concepts", *given, "dataset.label=kind") == 0
    found = newest(tmp_path, "concepts")
    assert all(row["ap"] >= 0.5 for row in saved_rows(found, "labels") if row["label"] == "most")
    assert {(row["covered"], row["coverable"]) for row in saved_rows(found, "summary")} == {(0, 1)}
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: 1 of 3 labels, with fewer than 5 groups in one of the two halves of the pairs: rare" in said
    assert "a random order has average precision ≥ 0.5: most" in said


@pytest.mark.parametrize(("given", "message"), [({"k": 1}, "k=1"), ({"covered": 0.0}, "covered=0.0 is an average")])
def test_settings_check_themselves(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{"k": 20, "min_groups": 5, "covered": 0.5, "max_pairs": 5000, **given})  # type: ignore[arg-type]


def test_average_precision_of_the_chosen_feature_is_of_held_out_pairs(store: Path) -> None:
    """Recomputed from the store with scikit-learn on the pairs of `val`, one a group."""
    found = made(store)
    from mmmono.features import FeatureStore, split_view

    view = split_view(FeatureStore(store), "val")
    first = np.unique(view.groups(), return_index=True)[1]
    metadata, values = view.metadata(), view.read("image", 0, len(view)).numpy()
    (row,) = (
        r
        for r in saved_rows(found, "labels")
        if (r["feature_set"], r["samples"], r["label"]) == ("raw", "image", "cat")
    )
    expected = average_precision_score(metadata["kind"].to_numpy()[first] == "cat", values[first, row["feature"]])
    assert row["ap"] == pytest.approx(expected, abs=1e-3)


def test_no_gain_of_two_labels_is_above_1() -> None:
    """Average precisions lie between 0 and 1; of two gains Student's interval goes far beyond."""
    found = {"raw": (1.0, 0.6), CONTROL: (0.1, 0.5)}
    tables: dict[str, list[dict[str, object]]] = {
        "labels": [{"feature_set": name, "samples": "image", "ap": ap} for name, aps in found.items() for ap in aps],
        "summary": [{"feature_set": "raw", "samples": "image"}],
    }
    _add_gain(tables)
    [row] = tables["summary"]
    assert (row["gain_low"], row["gain_high"]) == (-1, 1)
