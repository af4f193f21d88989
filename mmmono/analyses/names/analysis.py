"""Choose a name for every feature on pairs of the training split, and test it on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Int64
from torch import Tensor

from mmmono.analyses.names import SIDES, Settings
from mmmono.analyses.names.asking import NamingJudge, Shown, messages_about
from mmmono.analyses.names.choice import FeatureNames, Likeness, choose_names
from mmmono.analyses.names.winning import WinningNames, winning_names
from mmmono.analyses.names.words import (
    Directions,
    caption_column,
    check_columns,
    vocabulary_of,
    word_directions,
    words_recipe,
)
from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, Modality
from mmmono.interpretability.activity import ActivityRule
from mmmono.interpretability.detection import Detection, detection
from mmmono.interpretability.text_likeness import TextComparer
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.false_discoveries import q_values
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.held_out import PairSample, chosen_and_held_out
from mmmono.pipeline.independence import shared_towers
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]
NULL_NAMES = 500  # names of other features that are the null, at most
LEAST_NULL = 50  # and at least: a set with fewer names takes words of the vocabulary, too


def prepare(workspace: Workspace) -> Study:
    """Name the features of the selected sets, and test the names.

    Raises:
        ConfigError: a setting is invalid, or no pairs are left to test on.
        DataError: the pairs have no captions.
    """
    settings = read_settings(workspace.cfg, "names", Settings)
    embedder = _embedder(workspace)
    test = workspace.features(workspace.dataset.split)
    check_columns(test.view.metadata(), settings)
    recipe = {
        "features": test.recipe,
        "chosen_on": workspace.features(workspace.settings.training.split).recipe,
        **workspace.partitions_recipe(),
        "names": _told(settings),
        **words_recipe(workspace, settings),
        "embedder": f"{embedder.name}-{embedder.fingerprint}",
        "independent": "text" not in shared_towers(workspace, embedder),
        "seed": workspace.seed,
    }
    judge = NamingJudge.of(workspace)
    if judge is not None:
        recipe["judge"] = judge.recipe(settings)
    chosen_and_held_out(workspace, settings.max_pairs)  # raises if there are no pairs to test on

    def compute(folder: Path) -> Tables:
        return _Naming(workspace, settings, embedder, judge).tables()

    return Study(recipe, compute)


def _told(settings: Settings) -> dict[str, Any]:
    """Settings that determine names; the content of a vocabulary's file and what a judge sees stand beside them."""
    told = {key: value for key, value in asdict(settings).items() if key not in ("samples", "judged")}
    return {**told, "vocabulary": "captions" if settings.vocabulary == "captions" else "file"}


def _embedder(workspace: Workspace) -> TextComparer:
    chosen = workspace.cfg.embedder
    if chosen is None or "_target_" not in chosen:
        raise ConfigError(
            "embedder=clip is the model itself, whose words the names are: choose embedder=words, offline or paper"
        )
    embedder: TextComparer = instantiate(chosen, device=workspace.device)
    return embedder


@dataclass(frozen=True)
class _Half:
    """Pairs with how alike their captions are to every word of the vocabulary, by modality."""

    pairs: PairSample
    likeness: dict[Modality, Likeness]


class _Naming:
    """Names feature sets, all by the same vocabulary and on the same pairs."""

    def __init__(
        self, workspace: Workspace, settings: Settings, embedder: TextComparer, judge: NamingJudge | None
    ) -> None:
        self._workspace, self._settings = workspace, settings
        choose, test = chosen_and_held_out(workspace, settings.max_pairs)
        vocabulary = vocabulary_of(choose, settings)
        self._embeddings = {m: choose.embeddings(workspace, m) for m in MODALITIES}
        self._directions: Directions = word_directions(workspace, choose, self._embeddings, vocabulary, settings)
        self._judged = {} if judge is None else {name: self._asked(choose, judge, name) for name in workspace.specs}
        given = {word: None for names in self._judged.values() for word in names.values() if word}
        # The vocabulary first: these are the words that have directions.
        self._words = list(dict.fromkeys([*vocabulary, *given]))
        self._choose, self._test = _halves(choose, test, self._words, settings, embedder)

    def tables(self) -> Tables:
        """Name the selected feature sets."""
        found = [self._rows(name) for name in self._workspace.specs]
        names, judged = ([row for of in found for row in of[place]] for place in (0, 1))
        return {"names": names, "summary": _summary(names), **({"judged": judged} if self._judged else {})}

    def _shown(self, pairs: PairSample, name: str) -> Shown:
        """What the features of a set are active on."""
        workspace = self._workspace
        feature_set = workspace.feature_set(name)
        strength = {m: pairs.activations(workspace, feature_set, m) for m in MODALITIES}
        rule = ActivityRule.of(strength, self._settings.active_share)
        return Shown(workspace.partition(name).class_of(), rule, strength)

    def _asked(self, pairs: PairSample, judge: NamingJudge, name: str) -> dict[int, str]:
        """What a judge calls the features of a set that it was asked about."""
        about = messages_about(self._shown(pairs, name), pairs, judge.prompt, self._settings, self._workspace.seed)
        return judge.names(about)

    def _rows(self, name: str) -> tuple[list[Row], list[Row]]:
        """One row for each feature of a set, and one for each name of the features that a judge was asked about."""
        settings, feature_set = self._settings, self._workspace.feature_set(name)
        shown = self._shown(self._choose.pairs, name)
        rule, classes = shown.rule, shown.classes
        active = {m: rule.active(shown.strength[m], m) for m in MODALITIES}
        atoms = feature_set.atoms if settings.directions == "atoms" else None
        signed = None if atoms is None else atoms.detach().cpu() * rule.sign[:, None]
        names = FeatureNames.of(active, self._embeddings, signed, self._directions)
        chosen = choose_names(settings, classes, names, active, self._choose.likeness)
        tried = [chosen.word]
        if self._judged:
            place = {word: index for index, word in enumerate(self._words)}
            given = [place.get(self._judged[name].get(feature, ""), -1) for feature in range(len(classes))]
            tried.append(torch.tensor(given))
        best = self._best(classes, tried, {m: self._held_out(feature_set, rule, m) for m in MODALITIES})
        q_value = q_values(best.p_value)
        cells = _cells(best.found)
        rows = [
            {
                "feature_set": name, "feature": feature, "class": classes[feature],
                "name": self._word(word), "named": bool(q_value[feature] <= settings.fdr),
                **({"by": best.by(feature)} if self._judged else {}),
                **{f"{side}_words": self._nearest(chosen.nearest[side][feature]) for side in MODALITIES},
                **{column: values[feature] for column, values in cells.items()},
                "p_value": float(best.p_value[feature]), "q_value": float(q_value[feature]),
            }
            for feature, word in enumerate(best.word.tolist())
        ]  # fmt: skip
        return rows, [
            {"feature_set": name, "feature": feature, "class": classes[feature], **row}
            for feature in self._judged.get(name, {})
            for row in best.tried(feature, self._words)
        ]

    def _best(
        self,
        classes: Sequence[str],
        tried: Sequence[Int64[Tensor, " features"]],
        active: dict[Modality, Bool[Tensor, "pairs features"]],
    ) -> WinningNames:
        """Test the names of either source against the names of all features from both, and keep the better ones."""
        null = torch.cat(list(tried))
        null = null[null >= 0].unique()
        return winning_names(
            classes, tried, [{m: self._detect(m, word, null, active[m]) for m in MODALITIES} for word in tried]
        )

    def _held_out(self, feature_set: Any, rule: ActivityRule, modality: Modality) -> Bool[Tensor, "pairs features"]:
        return rule.active(self._test.pairs.activations(self._workspace, feature_set, modality), modality)

    def _detect(
        self,
        modality: Modality,
        word: Int64[Tensor, " features"],
        names: Int64[Tensor, " names"],
        active: Bool[Tensor, "pairs features"],
    ) -> Detection:
        """Test names on the held-out samples of a modality that have a caption, against `names`."""
        likeness, rng = self._test.likeness[modality], np.random.default_rng(self._workspace.seed)
        null = names.numpy()
        if len(null) < LEAST_NULL:
            more = np.setdiff1d(np.arange(len(self._words)), null)
            null = np.concatenate([null, rng.permutation(more)[: LEAST_NULL - len(null)]])
        used = torch.cat([word[word >= 0].unique(), torch.from_numpy(null)]).unique()
        place = torch.full((len(self._words),), -1)
        place[used] = torch.arange(len(used))
        others = place[torch.from_numpy(rng.permutation(null)[:NULL_NAMES])].tolist()
        own = torch.where(word >= 0, place[word.clamp_min(0)], -1)
        groups = np.unique(self._test.pairs.groups[likeness.rows], return_inverse=True)[1]
        return detection(likeness.of(used), active[likeness.rows], own, groups, others)

    def _word(self, index: int) -> str:
        return self._words[index] if index >= 0 else ""

    def _nearest(self, indices: Int64[Tensor, " nearest"]) -> str:
        return ", ".join(self._word(index) for index in indices.tolist() if index >= 0)


def _halves(
    choose: PairSample, test: PairSample, words: Sequence[str], settings: Settings, embedder: TextComparer
) -> tuple[_Half, _Half]:
    """Compare the captions of both halves with the words."""
    columns = {m: caption_column(m, settings) for m in MODALITIES}
    captions = [pairs.metadata[columns[m]].to_numpy(dtype=object) for pairs in (choose, test) for m in MODALITIES]
    rows = [np.flatnonzero(of != "") for of in captions]
    vectors, *embedded = embedder.comparable(
        words, *(of[there].tolist() for of, there in zip(captions, rows, strict=True))
    )
    image, text, test_image, test_text = (
        Likeness(there, vectors, of) for there, of in zip(rows, embedded, strict=True)
    )
    return _Half(choose, {"image": image, "text": text}), _Half(test, {"image": test_image, "text": test_text})


def _cells(found: dict[Modality, Detection]) -> dict[str, list[Any]]:
    """Columns of the detection on either side."""
    cells: dict[str, list[Any]] = {}
    for side, of in found.items():
        low, high = of.interval().tolist()
        cells |= {
            f"auroc_{side}": of.auroc.tolist(), f"auroc_{side}_low": low, f"auroc_{side}_high": high,
            f"chance_{side}": of.chance.tolist(), f"better_{side}": of.better.tolist(),
            f"active_{side}": of.active.tolist(),
        }  # fmt: skip
    return cells


def _summary(names: list[Row]) -> list[Row]:
    """One row for each feature set and class, and one for all live features of a set."""
    rows = []
    for feature_set in dict.fromkeys(row["feature_set"] for row in names):
        live = [row for row in names if row["feature_set"] == feature_set and row["class"] != "dead"]
        for of in (*LIVE_CLASSES, "live"):
            members = [row for row in live if of in (row["class"], "live")]
            means = {
                f"{score}_{side}": _mean([row[f"{score}_{side}"] for row in members])
                for score in ("auroc", "chance")
                for side in SIDES
            }
            rows.append(
                {
                    "feature_set": feature_set, "class": of, "features": len(members),
                    "tested": sum(row["p_value"] == row["p_value"] for row in members),  # not NaN
                    "named": sum(bool(row["named"]) for row in members), **means,
                }
            )  # fmt: skip
    return rows


def _mean(values: list[Any]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
