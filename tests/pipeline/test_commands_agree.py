"""What commands write is what numpy says of the same store: rows of any length in half precision, with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from mmmono.dictionaries import Dictionary
from mmmono.interpretability.chance import random_rows
from mmmono.modality import dominance_scores, resample_dominance, score_intervals
from tests.metrics import references
from tests.pipeline.conftest import run_entrypoint, saved_rows

PAIRS, DIM, M = 150, 12, 5
MODALITIES = ("image", "text")
SETTINGS = [
    "model.name=mine", "dataset=store", "dataset.split=all", "training.split=all", "features=[raw,sae]", "features.k=3",
    "mds.min_pairs=2", "trainer.max_steps=20", "trainer.min_steps=1", "trainer.val_check_interval=10",
]  # fmt: skip
EXTRA = {
    "mds": [],
    "certainty": ["certainty.n_permutations=300", "certainty.n_bootstrap=30", "certainty.n_halves=2"],
    "interpretability": [f"interpretability.m={M}", "interpretability.n_draws=2", "embedder=clip"],
    "faithfulness": [],
    "ablation": ["dataset.label=category", "ablation.n_random=1"],
}  # fmt: skip


class Made:
    """A store, what commands left of it, and the same numbers read without the framework."""

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.labels = np.repeat(["cat", "dog", "eel"], PAIRS // 3)
        concepts = rng.standard_normal((3, DIM))[np.unique(self.labels, return_inverse=True)[1]]
        self.stored = {
            modality: (scale * (concepts + shift + rng.standard_normal((PAIRS, DIM)))).astype(np.float16)
            for modality, shift in zip(MODALITIES, (0.5, -0.5), strict=True)
        }
        for modality, prefix in zip(MODALITIES, ("img_emb", "text_emb"), strict=True):
            (folder / "store" / prefix).mkdir(parents=True)
            np.save(folder / "store" / prefix / f"{prefix}_0.npy", self.stored[modality])
        (folder / "store" / "metadata").mkdir()
        metadata = {"key": [f"{i:03d}" for i in range(PAIRS)], "category": self.labels}
        metadata["caption"] = [f"caption {i}" for i in range(PAIRS)]
        pd.DataFrame(metadata).to_parquet(folder / "store" / "metadata" / "metadata_0.parquet")

    def run(self, name: str) -> Path:
        root = self.folder / "artifacts"
        where = [f"artifacts={root}", f"dataset.path={self.folder / 'store'}"]
        assert run_entrypoint(name, *where, *SETTINGS, *EXTRA[name]) == 0
        (recipe,) = (root / "results").glob(f"{name}-*/recipe.json")
        return recipe.parent

    def raw(self, modality: str) -> np.ndarray:
        rows = self.stored[modality].astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @property
    def sae(self) -> Dictionary:
        (config,) = (self.folder / "artifacts" / "dictionaries").glob("sae-*/config.json")
        return Dictionary.from_pretrained(config.parent)

    def codes(self, name: str, modality: str) -> np.ndarray:
        if name == "raw":
            return self.raw(modality)
        with torch.no_grad():
            return self.sae.encode(torch.from_numpy(self.raw(modality)).float(), modality).double().numpy()  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[1e-3, 1.0, 1e3])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("numbers"), request.param)


def assert_close(got: object, expected: object, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(expected, float), rtol=1e-6, atol=atol)


@pytest.mark.slow
def test_mds(made: Made) -> None:
    results = made.run("mds")
    scores, summary = (pd.read_parquet(results / f"{name}.parquet") for name in ("scores", "summary"))
    for name in ("raw", "sae"):
        pair = [made.codes(name, modality) for modality in MODALITIES]
        rows = scores[scores.feature_set == name]
        expected = references.mds(*pair)
        assert_close(rows.mds, expected)
        assert_close(rows.standard_error, references.standard_error(*pair))
        counts = [(~np.isnan(references.ratios(*pair))).sum(0), (pair[0] != 0).sum(0), (pair[1] != 0).sum(0)]
        assert_close(rows[["informative_pairs", "image_active", "text_active"]].T, counts)
        live = expected[counts[0] >= 2]
        row = summary[summary["feature_set"] == name].iloc[0]
        assert_close([row["mean"], row["std"]], [live.mean(), live.std()])
        assert row.ImgD == (live > live.mean() + live.std()).sum()
        assert_close(row.gap, references.gap(*(made.stored[m].astype(float) for m in MODALITIES))[0])


@pytest.mark.slow
def test_certainty(made: Made) -> None:
    scores = pd.read_parquet(made.run("certainty") / "scores.parquet")
    for name in ("raw", "sae"):
        pair = [made.codes(name, modality) for modality in MODALITIES]
        rows = scores[scores.feature_set == name]
        assert_close(rows.energy, references.energy(*pair))
        assert_close(rows.auroc, references.auroc(*pair))
        resamples = resample_dominance([tuple(map(torch.from_numpy, pair))], 300, 30, 2, seed=0)  # type: ignore[arg-type]
        assert_close(rows.p_value, resamples.p_value)
        assert_close(rows.q_value, resamples.q_value)
        assert_close(rows[["low", "high"]].T, score_intervals(dominance_scores([tuple(map(torch.from_numpy, pair))])))  # type: ignore[arg-type]


@pytest.mark.slow
def test_interpretability(made: Made) -> None:
    scores = pd.read_parquet(made.run("interpretability") / "scores.parquet")
    pool = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(0))
    for name in ("raw", "sae"):
        z = np.concatenate([made.codes(name, modality) for modality in MODALITIES]).astype(float)
        side = np.where((np.minimum(z, 0) ** 2).sum(0) > (np.maximum(z, 0) ** 2).sum(0), -1, 1)
        assert (side < 0).any() == (name == "raw")
        for modality in MODALITIES:
            codes, e = made.codes(name, modality), made.raw(modality)
            rows = scores[(scores.feature_set == name) & (scores.samples == modality)]
            assert_close(rows.ms, references.ms(codes, e))
            codes = codes * side
            scored = (codes > 0).sum(0) >= M
            top = np.argsort(-codes, axis=0, kind="stable")[:M].T[scored]
            draws = random_rows(pool, len(scored), M, 2, seed=0).numpy()[:, scored]
            eq5 = np.mean([references.embsim_and_winrate(e[top], e[draw]) for draw in draws], axis=0)
            for column, expected in zip(("embsim", "embsim_pooled", "winrate"), eq5, strict=True):
                # Cosines of float32 vectors, divided by 0.01 at least.
                assert_close(rows[column][scored], expected, atol=2e-5)
            assert_close(rows.mono[~scored].isna(), 1)


def test_faithfulness(made: Made) -> None:
    results = made.run("faithfulness")
    reconstruction, function = (saved_rows(results, name) for name in ("reconstruction", "function"))
    decoded = {}
    for modality in MODALITIES:
        (row,) = [r for r in reconstruction if (r["feature_set"], r["samples"]) == ("sae", modality)]
        x, codes = made.raw(modality), made.codes("sae", modality)
        with torch.no_grad():
            decoded[modality] = made.sae.decode(torch.from_numpy(codes).float(), modality).double().numpy()  # type: ignore[arg-type]
        assert_close(
            [row["fvu"], row["cosine"]],
            [references.fvu(x, decoded[modality]), references.mean_cosine(x, decoded[modality])],
        )
        assert_close([row["l0"], row["active"]], [(codes != 0).sum(1).mean(), (codes != 0).any(0).sum()])
    spaces = {
        "embeddings": {modality: made.raw(modality) for modality in MODALITIES},
        "features": {modality: made.codes("sae", modality) for modality in MODALITIES},
        "reconstruction": decoded,
    }
    assert [row["space"] for row in function] == list(spaces)
    for row, z in zip(function, spaces.values(), strict=True):
        for k in (1, 5, 10):
            assert_close(row[f"i2t_r{k}"], references.recall(z["image"], z["text"], k))
            assert_close(row[f"t2i_r{k}"], references.recall(z["text"], z["image"], k))
        assert_close(row["contrastive_loss"], references.clip_loss(z["image"], z["text"], 1 / 0.07))
        assert_close(row["gap"], references.gap(z["image"], z["text"])[0])
        assert row["zero_shot"] is None


@pytest.mark.slow
def test_ablation(made: Made) -> None:
    table = saved_rows(made.run("ablation"), "table1")
    for modality in MODALITIES:
        (row,) = [r for r in table if (r["feature_set"], r["task"], r["deletion"]) == ("raw", modality, "None")]
        x = made.raw(modality)
        x = x / np.sqrt((x**2).mean())
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        assert_close(
            row["accuracy"], cross_val_score(LogisticRegression(max_iter=1000), x, made.labels, cv=folds).mean()
        )
