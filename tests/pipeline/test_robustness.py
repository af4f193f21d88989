"""Robustness of the classes: the saved numbers against numpy, and the table as it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmono.analyses.robustness import ROBUSTNESS, Settings
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command, newest, saved_rows

CLIP = Path(__file__).parents[3] / "shared/data/clip_pairs/coco_clip_vitb16_500.npy"  # 500 real pairs of CLIP ViT-B/16


def as_store(folder: Path, z: np.ndarray, groups: list[str] | None = None) -> tuple[str, ...]:
    """Write embeddings [2, pairs, dim] as a store; return the overrides that choose it."""
    for side, name in zip(z, ("img_emb", "text_emb"), strict=True):
        (folder / "store" / name).mkdir(parents=True)
        np.save(folder / "store" / name / f"{name}_0.npy", side.astype(np.float32))
    if groups is not None:
        (folder / "store" / "metadata").mkdir()
        frame = pd.DataFrame({"key": [str(i) for i in range(z.shape[1])], "group": groups})
        frame.to_parquet(folder / "store" / "metadata" / "metadata_0.parquet")
    return (f"artifacts={folder / 'made'}", "dataset=store", f"dataset.path={folder / 'store'}", "dataset.split=all",
            "training.split=all", "device=cpu")  # fmt: skip


def mds(z: np.ndarray) -> np.ndarray:
    return (np.abs(z[0]) / np.abs(z).sum(0)).mean(0)


def test_the_table_is_numpys(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 200, 24)) + rng.standard_normal((2, 1, 24))
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    run = command("robustness", *as_store(tmp_path, z), "features=raw", "robustness.factors=[0.5]")
    assert run.status == 0, run.err
    rows = {row["change"]: row for row in saved_rows(newest(tmp_path / "made", "robustness"), "robustness")}
    changed = {
        "as is": z,
        "images × 0.5": np.stack([0.5 * z[0], z[1]]),
        "each modality centered": z - z.mean(1, keepdims=True),
        "pooled mean removed": z - z.mean((0, 1)),
    }
    assert list(rows) == [*changed, "pairs broken"]
    for change, of in changed.items():
        scores, row = mds(of), rows[change]
        assert row["mean"] == pytest.approx(scores.mean(), abs=1e-6)
        assert row["std"] == pytest.approx(scores.std(), abs=1e-6)
        assert row["ImgD"] == (scores > scores.mean() + scores.std()).sum()
        before = mds(z)
        kept = (scores > scores.mean() + scores.std()) & (before > before.mean() + before.std())
        assert row["ImgD_kept"] == kept.sum()
    assert rows["pairs broken"]["mean"] == pytest.approx(mds(z).mean(), abs=0.01)
    assert rows["pairs broken"]["mean"] != rows["as is"]["mean"]


def test_sparse_codes_are_not_centered_and_copies_of_an_image_get_other_texts(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = np.maximum(rng.standard_normal((2, 120, 12)), 0)
    z[:, :, 0] += 0.1
    groups = [f"drawing {i // 4}" for i in range(120)]
    run = command("robustness", *as_store(tmp_path, z, groups), "features=raw", "mds.min_pairs=1")
    assert run.status == 0, run.err
    rows = saved_rows(newest(tmp_path / "made", "robustness"), "robustness")
    assert [row["change"] for row in rows] == ["as is", "images × 0.8", "images × 1.25", "pairs broken"]


def test_dimensions_that_are_always_0_make_no_embeddings_sparse(command: Command, tmp_path: Path) -> None:
    z = np.random.default_rng(0).standard_normal((2, 100, 20))
    z[:, :, :2] = 0
    run = command("robustness", *as_store(tmp_path, z), "features=raw")
    assert run.status == 0, run.err
    changes = [row["change"] for row in saved_rows(newest(tmp_path / "made", "robustness"), "robustness")]
    assert "each modality centered" in changes


def test_pairs_of_one_large_group_are_not_broken(command: Command, tmp_path: Path) -> None:
    z = np.random.default_rng(0).standard_normal((2, 60, 8))
    groups = ["album"] * 40 + [f"drawing {i}" for i in range(20)]
    run = command("robustness", *as_store(tmp_path, z, groups), "features=raw", "mds.min_pairs=1")
    assert run.status == 0, run.err
    assert "pairs cannot be broken: one group has more than half of them" in " ".join(run.out.split())
    rows = saved_rows(newest(tmp_path / "made", "robustness"), "robustness")
    assert [row["change"] for row in rows][-1] == "pooled mean removed"


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="factors=-2 must be positive"):
        Settings([1, -2], 0.05)
    with pytest.raises(ValueError, match="fdr=1 must lie between 0 and 1"):
        Settings([0.8], 1)


def test_kept_features_are_shown_beside_how_many_there_were(tmp_path: Path) -> None:
    row = dict.fromkeys(ROBUSTNESS.columns["robustness"], 0.5)
    counts = {"feature_set": "raw", "ImgD": 5, "TextD": 3}
    rows = [{**row, **counts, "change": "as is", "ImgD_kept": 5, "TextD_kept": 3},
            {**row, **counts, "change": "pairs broken", "ImgD": 9, "ImgD_kept": 4, "TextD_kept": 0}]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "robustness.parquet")
    shown = ROBUSTNESS.tables[0].rows(Result(tmp_path, {}))
    assert [(r["ImgD kept"], r["TextD kept"]) for r in shown] == [("5 of 5", "3 of 3"), ("4 of 5", "0 of 3")]


@pytest.mark.skipif(not CLIP.exists(), reason=f"{CLIP} is not here: 500 real pairs that are not part of the project")
def test_real_clip_pairs_give_what_was_found_independently(command: Command, tmp_path: Path) -> None:
    """Computed in numpy, apart from this project (docs/centring.md)."""
    overrides = as_store(tmp_path, np.load(CLIP).astype(np.float64))
    run = command("robustness", *overrides, "features=[raw,random_rotation]")
    assert run.status == 0, run.err
    rows = {
        (r["feature_set"], r["change"]): r for r in saved_rows(newest(tmp_path / "made", "robustness"), "robustness")
    }
    base = rows["raw", "as is"]
    assert (base["ImgD"], base["TextD"], base["CrossD"]) == (51, 35, 426)
    assert (base["mean"], base["std"]) == (pytest.approx(0.4761, abs=1e-4), pytest.approx(0.0663, abs=1e-4))
    assert base["significant"] == pytest.approx(346, abs=3)
    centered, pooled = (rows["raw", change] for change in ("each modality centered", "pooled mean removed"))
    found = [(r["rho"], r["same"], r["ari"], r["ImgD_kept"], r["TextD_kept"]) for r in (centered, pooled)]
    assert found[0] == pytest.approx((0.68, 0.883, 0.47, 35, 7), abs=6e-3)
    assert found[1] == pytest.approx((0.64, 0.836, 0.34, 33, 5), abs=6e-3)
    assert rows["raw", "pairs broken"]["rho"] > 0.99
    assert [rows["raw", f"images × {c}"]["significant"] for c in (0.8, 1.25)] == pytest.approx([473, 268], abs=3)
    turned = [rows["random_rotation", change]["std"] for change in ("as is", "each modality centered")]
    assert turned == pytest.approx([0.101, 0.026], abs=3e-3)  # more modal than CLIP's own axes, and less once centered
    assert turned[0] > base["std"] > 2 * turned[1]
    assert centered["std"] == pytest.approx(0.053, abs=1e-3)
