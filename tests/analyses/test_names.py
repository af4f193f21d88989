"""The analysis `names` on synthetic pairs whose concepts have one word each: every name is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, rankdata

from mmmono.analyses.names import NAMES, Settings, judge_rows, side_of
from mmmono.analyses.names.analysis import _summary
from mmmono.analyses.names.choice import FeatureNames, Likeness, choose_names
from mmmono.analyses.names.winning import p_values
from mmmono.analyses.names.words import word_directions
from mmmono.features import MODALITIES
from mmmono.features.synthetic import KINDS, SyntheticPairs, SyntheticParameters, read_truth, synthesize
from mmmono.interpretability.activity import ActivityRule
from mmmono.interpretability.detection import Detection, detection
from mmmono.interpretability.naming import mean_directions
from mmmono.interpretability.shared_words import shared_words
from mmmono.interpretability.text_likeness import likeness
from mmmono.modality.false_discoveries import q_values
from mmmono.pipeline.held_out import PairSample
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table
from tests.pipeline.conftest import newest, run_entrypoint, saved_rows

# The concepts of sample i in words: `47` is the word of concept 47.
PARAMETERS = SyntheticParameters(pairs=4000, dim=24, image_atoms=12, text_atoms=12, shared_atoms=12, active=3, gap=1.0)
CLASSES = ["ImgD"] * 12 + ["TextD"] * 12 + ["CrossD"] * 12
DATA = ("dataset=synthetic", "dataset.pairs=4000", "dataset.dim=32", "dataset.image_atoms=12", "dataset.text_atoms=12",
        "dataset.shared_atoms=12", "dataset.active=3", "names.image_text=image_concepts",
        "names.phrase=1", "names.max_share=0.6")  # fmt: skip
SAE = ("features=sae", "features.k=3", "features.expansion=2", "trainer=cpu", "trainer.max_steps=800")


def settings(**given: object) -> Settings:
    values = {
        "vocabulary": "captions", "phrase": 1, "min_groups": 2, "max_share": 0.6, "size": 2000, "embeddings": "captions",
        "directions": "samples", "candidates": 10, "unique": False, "image_text": "caption", "active_share": 0.05,
        "max_pairs": 5000, "fdr": 0.05, "samples": 8, "judged": None, **given,
    }  # fmt: skip
    return Settings(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pairs() -> SyntheticPairs:
    return synthesize(PARAMETERS)


def captions(codes: torch.Tensor) -> list[str]:
    return ["concepts " + " ".join(map(str, np.flatnonzero(row))) for row in codes.numpy()]


@pytest.mark.parametrize("atoms", [False, True])
@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("candidates", [1, 10])
def test_true_codes_get_the_words_of_their_concepts(
    pairs: SyntheticPairs, atoms: bool, unique: bool, candidates: int
) -> None:
    """Atoms are bent along the modality gap, as those of single-modality latents are."""
    codes = {"image": pairs.image_codes, "text": pairs.text_codes}
    embeddings = {"image": pairs.image, "text": pairs.text}
    rule = ActivityRule.of(codes, 0.05)
    active = {m: rule.active(codes[m], m) for m in MODALITIES}
    gap = torch.nn.functional.normalize(pairs.image.mean(0) - pairs.text.mean(0), dim=0)
    bent = pairs.atoms + torch.tensor([1.0, -1.0, 0.0])[pairs.kind][:, None] * gap
    words = [str(i) for i in range(36)]
    lie = {m: mean_directions(codes[m] > 0, embeddings[m], 2) for m in MODALITIES}
    said = {m: Likeness(np.arange(4000), *shared_words().comparable(words, captions(codes[m]))) for m in MODALITIES}
    names = FeatureNames.of(active, embeddings, bent if atoms else None, lie)
    chosen = choose_names(settings(unique=unique, candidates=candidates), CLASSES, names, active, said)
    assert chosen.word.tolist() == list(range(36))
    assert chosen.nearest["image"][:12, 0].tolist() == list(range(12))
    assert chosen.nearest["text"][12:24, 0].tolist() == list(range(12, 24))


def test_shuffled_names_are_rejected(pairs: SyntheticPairs) -> None:
    """The detection score of right names is far above ½; that of shuffled ones is ½, and none of them holds."""
    active = pairs.text_codes > 0
    words, texts = shared_words().comparable([str(i) for i in range(36)], captions(pairs.text_codes))
    similarity = likeness(words, torch.arange(36), texts)
    names, groups = torch.arange(36), np.arange(4000)
    right = detection(similarity, active, names, groups, names.tolist())
    assert float(right.auroc[12:].min()) > 0.95
    assert float((q_values(right.p_value)[12:] <= 0.05).double().mean()) == 1
    for shift in (1, 5, 13):
        shuffled = detection(similarity, active, names.roll(shift), groups, names.tolist())
        assert float(shuffled.auroc.nanmean()) == pytest.approx(0.5, abs=0.02)
        assert int((q_values(shuffled.p_value) <= 0.05).sum()) <= 1
    assert float(right.chance.nanmean()) == pytest.approx(0.5, abs=0.02)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    assert run_entrypoint("names", f"artifacts={root}", *DATA, *SAE) == 0
    return newest(root, "names")


@pytest.mark.slow
def test_latents_of_a_trained_sae_get_the_words_of_the_concepts_that_they_recover(found: Path) -> None:
    """A latent recovers a concept if its activations correlate with the concept's true codes by at least 0.7."""
    from hydra import compose, initialize_config_dir

    from mmmono.modality.agreement import feature_correlations
    from mmmono.pipeline.running import CONF
    from mmmono.pipeline.workspace import Workspace

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("names", [f"artifacts={found.parent.parent}", *DATA, *SAE])
    workspace = Workspace(cfg, makes="none")
    view = workspace.features("val").view
    truth, sae = read_truth(view.store.path), workspace.feature_set("sae")
    codes = torch.cat([truth[f"{m}_codes"][view.rows] for m in MODALITIES])
    values = torch.cat([workspace.encode_rows(sae, m, np.arange(len(view))) for m in MODALITIES])
    best, feature = feature_correlations([(codes, values)]).max(1)
    names = pd.read_parquet(found / "names.parquet")
    for kind, of in enumerate(KINDS):
        recovered = [i for i in range(36) if truth["kind"][i] == kind and best[i] >= 0.7]
        right = [names["name"][int(feature[i])] == str(i) and names["named"][int(feature[i])] for i in recovered]
        assert len(recovered) >= 8, of
        assert np.mean(right) >= 0.95, of
    live = names[names["class"] != "dead"]
    for side in MODALITIES:
        assert live[f"chance_{side}"].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_tables_and_figures_show_names_that_hold(found: Path) -> None:
    result = Result(
        found, {"names": {"fdr": 0.05}, "embedder": "words-x", "independent": True, "sets": [{"name": "sae"}]}
    )
    rows = {row["class"]: row for row in NAMES.tables[0].rows(result)}
    named = sum(row["named"] for row in saved_rows(found, "names"))
    assert rows["live"]["named"].startswith(f"{named} of ")
    shown = NAMES.tables[1].rows(result, "sae")
    assert {row["class"] for row in shown} == {"ImgD", "TextD", "CrossD"}
    assert all(row["name"].isdigit() for row in shown)
    assert {"names.png", "best_names.png"} <= {file.name for file in found.iterdir()}
    (panel,) = dict(NAMES.draw(result))["best_names"].axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [row["name"] for row in shown]


def with_p(p: list[float], better: float = 0.0) -> Detection:
    class Fixed(Detection):
        p_value = torch.tensor(p, dtype=torch.float64)

    nothing = torch.zeros(len(p), dtype=torch.float64)
    return Fixed(nothing, nothing, nothing + better, nothing, nothing.long(), nothing.long(), nothing)


def test_a_name_that_many_others_match_is_not_significant_however_far_it_is_above_their_mean() -> None:
    found = p_values(["ImgD", "TextD", "CrossD"], {"image": with_p([0.01] * 3), "text": with_p([0.02] * 3, 0.06)})
    assert found.tolist() == pytest.approx([0.01, 1, 0.02])
    assert p_values(["TextD"], {"image": with_p([0.01]), "text": with_p([0.02], 0.05)}).tolist() == [0.02]
    nan = float("nan")
    (untested,) = p_values(["TextD"], {"image": with_p([nan], nan), "text": with_p([nan], nan)})
    assert untested.isnan()


def test_a_related_but_wrong_name_does_not_hold() -> None:
    """It is far above the mean of other names, but four of forty are better; the right one is better than all of them."""
    rng = np.random.default_rng(0)
    active = rng.random(1000) < 0.2
    levels = np.array([0.7, 0.95, *[0.8] * 4, *[0.5] * 36])  # AUROC of the wrong name, of the right one, of others
    scores = rng.normal(size=(42, 1000)) + active * norm.ppf(levels)[:, None] * 2**0.5
    for own, holds in ((0, False), (1, True)):
        found = detection(
            torch.from_numpy(scores),
            torch.from_numpy(active)[:, None],
            torch.tensor([own]),
            np.arange(1000),
            range(2, 42),
        )
        assert float(found.p_value) < 0.001
        assert (float(p_values(["TextD"], {"image": found, "text": found})) <= 0.05) == holds


def test_the_side_of_the_class_decides_and_both_sides_of_shared_features_count_once() -> None:
    nan = float("nan")
    sides = {"image": with_p([0.1, 0.2, 0.3, 0.9, nan]), "text": with_p([0.5, 0.6, 0.02, 0.8, 0.04])}
    found = p_values(["ImgD", "TextD", "CrossD", "CrossD", "CrossD"], sides)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([0.1, 0.6, 0.04, 1.0, 0.04])


def test_the_summary_counts_live_features_and_leaves_out_what_is_not_tested() -> None:
    nan = float("nan")
    rows = [
        {"feature_set": "a", "class": of, "p_value": p, "named": named, "auroc_image": auroc, "auroc_text": nan,
         "chance_image": 0.5, "chance_text": nan}
        for of, p, named, auroc in (("ImgD", 0.01, True, 0.9), ("ImgD", nan, False, nan), ("dead", nan, False, nan))
    ]  # fmt: skip
    image, _, _, live = _summary(rows)
    assert (image["features"], image["tested"], image["named"], image["auroc_image"]) == (2, 1, 1, 0.9)
    assert (live["class"], live["features"]) == ("live", 2)
    assert np.isnan(live["auroc_text"])


def test_what_is_not_tested_is_told(tmp_path: Path) -> None:
    """`0 of 1 tested` says nothing of the other 39 features."""
    shared = {
        "feature_set": "a",
        "named": 0,
        **dict.fromkeys(("auroc_image", "auroc_text", "chance_image", "chance_text")),
    }
    rows = [{**shared, "class": of, "features": count, "tested": 1} for of, count in (("ImgD", 8), ("live", 40))]
    save_table(rows, tmp_path / "summary", list(NAMES.columns["summary"]))
    remarks = list(NAMES.remarks(Result(tmp_path, {"embedder": "words-x", "independent": True})))
    assert [remark[:45] for remark in remarks if "tested" in remark] == [
        "a: 39 of 40 live features are not tested: the"
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidates": 0}, "candidates=0 must be at least 1"), ({"fdr": 1.0}, "fdr=1.0 is a share"),
        ({"embeddings": "towers"}, "embeddings=towers is none of auto, model, captions"),
    ],
)  # fmt: skip
def test_settings_check_themselves(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_what_cannot_be_named_is_told_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("dataset=synthetic", "dataset.pairs=300", "features=raw")
    words = tmp_path / "words.txt"
    words.write_text("\n")
    for more, message in [
        (["embedder=clip"], "embedder=clip is the model itself"),
        (["names.image_text=alt"], "names.image_text=alt is no column of the pairs"),
        (["names.embeddings=model"], "no model made synthetic pairs; set names.embeddings=captions"),
        ([f"names.vocabulary={words}"], f"names.vocabulary={words} is empty"),
        (["training.split=val"], "training.split=val holds every pair of dataset.split=val"),
        (["names.min_groups=250"], "no word is in the captions of at least names.min_groups=250 groups"),
    ]:
        assert run_entrypoint("names", f"artifacts={tmp_path / 'artifacts'}", *data, *more) == 1
        assert message in capsys.readouterr().err


def test_words_of_a_model_that_did_not_make_the_pairs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for prefix in ("img_emb", "text_emb"):
        (tmp_path / prefix).mkdir()
        np.save(tmp_path / prefix / f"{prefix}_0.npy", np.random.default_rng(0).random((40, 8), np.float32))
    (tmp_path / "metadata").mkdir()
    frame = pd.DataFrame({"key": [str(i) for i in range(40)], "caption": ["a cat", "a dog"] * 20})
    frame.to_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    given = ("dataset=store", f"dataset.path={tmp_path}", "features=raw", "names.embeddings=model")
    for model, why in (
        ((), "nothing says which it was"),
        (("model=drawingclip",), "they have 8 dimensions, those of model=dr"),
    ):
        assert run_entrypoint("names", f"artifacts={tmp_path / 'artifacts'}", *given, *model) == 1
        error = " ".join(capsys.readouterr().err.split())
        assert "names.embeddings=model needs the model that made the embeddings of store, and " + why in error
        assert error.endswith("choose it (model=); names.embeddings=captions does without it")


def test_words_in_too_few_groups_have_no_direction() -> None:
    """Three pairs of one group count once."""
    frame = pd.DataFrame({"caption": ["cat"] * 3 + ["dog"] * 2 + ["bird"] * 3})
    groups = np.array([0, 0, 0, 1, 2, 3, 3, 4])
    sample = PairSample("train", np.arange(8), groups, frame)
    embeddings = {m: torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) for m in MODALITIES}
    workspace: Any = SimpleNamespace(
        dataset=SimpleNamespace(feature_store=lambda artifacts, name: "given"),
        artifacts=None,
        model=SimpleNamespace(name=""),
    )
    found = word_directions(
        workspace, sample, embeddings, ["cat", "dog", "bird"], settings(min_groups=2, embeddings="auto")
    )
    assert found["text"].any(1).tolist() == [False, True, True]


def test_a_name_for_both_sides_is_shown_on_the_one_where_it_is_surer() -> None:
    row = {"class": "CrossD", "auroc_image": 0.9, "auroc_image_low": 0.4, "auroc_text": 0.8, "auroc_text_low": 0.7}
    assert side_of(row) == "text"
    assert side_of({**row, "auroc_text": None, "auroc_text_low": None}) == "image"
    assert side_of({**row, "class": "ImgD"}) == "image"


def test_auroc_by_ranks_is_the_share_of_pairs_in_the_right_order() -> None:
    """Mann and Whitney's U by a matrix product, as by scipy's ranks one at a time."""
    from mmmono.interpretability.detection import auroc_of_ranks

    rng = np.random.default_rng(0)
    scores, active = rng.normal(size=(3, 40)).round(), rng.random((40, 2)) < 0.4
    found = auroc_of_ranks(rankdata(scores, axis=1), torch.from_numpy(active))
    for feature in range(2):
        for name in range(3):
            above, below = scores[name, active[:, feature]], scores[name, ~active[:, feature]]
            wins = (above[:, None] > below).mean() + (above[:, None] == below).mean() / 2
            assert float(found[feature, name]) == pytest.approx(wins)


def test_no_difference_of_two_aurocs_is_above_1(tmp_path: Path) -> None:
    aurocs = {"judge": (1.0, 0.5), "vocabulary": (0.1, 0.9)}
    rows = [
        {"feature_set": "sae", "feature": feature, "class": "ImgD", "by": by, "auroc": auroc, "name": by, "wins": False}
        for by, both in aurocs.items()
        for feature, auroc in enumerate(both)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "judged.parquet")
    found = judge_rows(Result(tmp_path, {}))
    assert [row["difference [95 %]"] for row in found] == ["+0.250 [-1.000, +1.000]"] * 2
