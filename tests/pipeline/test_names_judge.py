"""Names by a judge, a server on loopback, against those of a vocabulary; every right name is known."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmmono.analyses.names import NAMES
from mmmono.analyses.names.winning import winning_names
from mmmono.interpretability.detection import Detection
from mmmono.reporting.result import Result
from tests.chat_server import Endpoint, Reply, completion, endpoints, never, says
from tests.pipeline.conftest import Command, newest, saved_rows

# The concepts of a synthetic sample in words: `47` is the word of concept 47.
DATA = (
    "dataset=synthetic", "dataset.pairs=1500", "dataset.dim=32", "dataset.image_atoms=6", "dataset.text_atoms=6",
    "dataset.shared_atoms=6", "dataset.active=3", "names.image_text=image_concepts", "names.phrase=1",
    "features=sae", "features.k=3", "features.expansion=1", "trainer=cpu", "trainer.max_steps=200",
    "trainer.min_steps=200", "mds.min_pairs=2", "judge=openai",
)  # fmt: skip


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Endpoint]]:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-secret")
    with endpoints(monkeypatch) as start:

        def chosen(*replies: Reply) -> Endpoint:
            endpoint = start(*replies)
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
            return endpoint

        yield chosen


def seen(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Samples of either kind in a message."""
    message = body["messages"][0]["content"]
    active, inactive = re.split(r"Silent on:", message)
    return re.findall(r"^- (.*)$", active, re.M), re.findall(r"^- (.*)$", inactive, re.M)


def wise(body: dict[str, Any]) -> tuple[int, bytes]:
    """The word that most of the first list has and least of the second."""
    active, inactive = (Counter(word for text in texts for word in set(text.split())) for texts in seen(body))
    return 200, completion(max(active, key=lambda word: (active[word] - inactive[word], word)))


def poor_vocabulary(folder: Path) -> str:
    """A vocabulary without the right words."""
    (folder / "words.txt").write_text("concept\nthing\n0\n")
    return f"names.vocabulary={folder / 'words.txt'}"


@pytest.mark.slow
def test_a_wise_judge_wins_where_the_vocabulary_lacks_the_words_and_is_asked_once(
    tmp_path: Path, command: Command, serve: Callable[..., Endpoint]
) -> None:
    endpoint = serve(wise)
    given = (*DATA, f"artifacts={tmp_path / 'artifacts'}", poor_vocabulary(tmp_path))
    first = command("names", *given)
    assert first.status == 0, first.err
    found = newest(tmp_path / "artifacts", "names")
    names, judged = saved_rows(found, "names"), saved_rows(found, "judged")
    asked = {row["feature"] for row in judged}
    assert len(endpoint.requests) == len(asked) >= 12
    assert sum(row["wins"] for row in judged if row["by"] == "judge") >= 0.6 * len(asked)
    assert sum(row["named"] for row in names if row["by"] == "judge") >= 0.5 * len(asked)
    for row in judged:  # of both names, the one with the larger score is the feature's
        both = {of["by"]: of for of in judged if of["feature"] == row["feature"]}
        best = max(both, key=lambda by: (both[by]["auroc"] or -1, both[by]["name"] != "", by == "vocabulary"))
        assert both[best]["wins"]
        assert names[row["feature"]]["name"] == both[best]["name"]
        assert names[row["feature"]]["by"] == best
    assert "gpt-4o-mini" in first.out
    again = command("names", *given, "names.fdr=0.2")
    assert again.status == 0, again.err
    assert len(endpoint.requests) == len(asked), "other settings of the test ask nothing"
    assert command("names", *given).out in first.out, "it is found again"
    assert len(endpoint.requests) == len(asked)
    fewer = command("names", *given, "names.judged=3", "names.samples=4")
    assert fewer.status == 0, fewer.err
    assert len(endpoint.requests) == len(asked) + 3
    assert max(len(texts) for texts in seen(endpoint.requests[-1])) <= 4


@pytest.mark.slow
def test_a_foolish_judge_never_wins_and_a_judge_that_dies_is_asked_on(
    tmp_path: Path, command: Command, serve: Callable[..., Endpoint]
) -> None:
    given = (*DATA, f"artifacts={tmp_path / 'artifacts'}", "judge.workers=1", "judge.attempts=2")
    plain = [option for option in given if not option.startswith("judge")]
    assert command("names", *plain).status == 0
    own = saved_rows(newest(tmp_path / "artifacts", "names"), "names")
    dying = serve(says("nonsense"), says("nonsense"), lambda _: (500, b"dead"))
    run = command("names", *given)
    assert run.status == 1
    assert "gave no name in 2 attempts: status 500; run the same command again to go on" in run.err
    assert len(dying.requests) == 4, "none is asked after one has failed"
    kept = [json.loads(line) for file in (tmp_path / "artifacts" / "verdicts").iterdir() for line in file.open()]
    assert [line["reply"] for line in kept] == ["nonsense", "nonsense"]
    # The address is a part of what replies depend on: the same server answers again.
    failing = (lambda _: (429, b"{}"), lambda _: (200, b"<html>"), never)
    dying.answer_with(says("Nonsense."), *failing, says("a\nb"), says("none"))
    before = len(dying.requests)
    run = command("names", *given, "judge.attempts=4", "judge.timeout=1")
    assert run.status == 0, run.err
    found = newest(tmp_path / "artifacts", "names")
    judged = saved_rows(found, "judged")
    asked = {row["feature"] for row in judged}
    assert len(dying.requests) - before == len(asked) - 2 + 3, "three attempts fail, and two features were named before"
    assert {row["name"] for row in judged if row["by"] == "judge"} == {"nonsense", ""}
    # A word that no sample has is right half of the time: it wins only against words that are right less often.
    assert all(row["auroc"] < 0.5 for row in judged if row["by"] == "vocabulary" and not row["wins"])
    names = saved_rows(found, "names")
    assert sum(row["by"] == "judge" for row in names) <= 2
    for row, alone in zip(names, own, strict=True):
        assert row["by"] == "judge" or all(row[of] == alone[of] for of in ("name", "auroc_image", "auroc_text"))


def test_what_cannot_name_is_told_before_any_work(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = ("dataset=synthetic", "dataset.pairs=300", "features=raw", f"artifacts={tmp_path / 'artifacts'}")
    for more, message in [
        (["judge=openai"], "set the environment variable OPENAI_API_KEY, or leave judge= out"),
        (["judge=refusal_keywords"], "a judge of the kind RefusalKeywords gives verdicts, no names"),
        (["judge=openai", "judge.prompt='name {active}'"], "judge.prompt has no {inactive}"),
        (["names.samples=0"], "names.samples=0 must be at least 1"),
        (["names.judged=0"], "names.judged=0 must be at least 1, or null"),
    ]:
        run = command("names", *given, *more)
        assert run.status == 1
        assert message in " ".join(run.err.split())
    assert not (tmp_path / "artifacts" / "results").exists()


def with_auroc(auroc: list[float]) -> Detection:
    """A detection with given AUROCs, against names that are at chance."""
    values = torch.tensor(auroc, dtype=torch.float64)
    many = torch.full((len(auroc),), 50)
    return Detection(values, values * 0 + 0.5, values * 0, values * 0 + 400, many, many, many.double())


NAN = float("nan")


def test_the_larger_auroc_on_the_side_of_the_class_wins_and_pays_for_the_choice() -> None:
    classes = ["ImgD", "TextD", "CrossD", "CrossD", "ImgD", "TextD", "dead", "ImgD"]
    words = [torch.tensor([0, 1, 2, 3, 4, 5, -1, -1]), torch.tensor([6, 7, 8, -1, 4, 9, -1, 5])]
    images = ([0.6, 0.9, 0.7, 0.7, 0.8, NAN, NAN, NAN], [0.7, 0.1, 0.9, NAN, 0.8, NAN, NAN, NAN])
    texts = ([0.9, 0.6, 0.7, NAN, 0.5, NAN, NAN, NAN], [0.1, 0.5, 0.6, NAN, 0.5, 0.6, NAN, NAN])
    tests: list[dict[Any, Detection]] = [
        {"image": with_auroc(image), "text": with_auroc(text)} for image, text in zip(images, texts, strict=True)
    ]
    found = winning_names(classes, words, tests)
    assert found.word.tolist() == [6, 1, 8, 3, 4, 9, -1, 5]
    sources = [found.by(feature) for feature in range(8)]
    assert sources == ["judge", "vocabulary", "judge", "vocabulary", "vocabulary", "judge", "", "judge"]
    assert found.found["image"].auroc.nan_to_num(-1).tolist() == [0.7, 0.9, 0.9, 0.7, 0.8, -1, -1, -1]
    different = [2, 2, 2, 1, 1, 1]  # names that were tested: one if both are the same, or only one is there
    for feature, factor in enumerate(different):
        alone = winning_names([classes[feature]], [found.word[[feature]]], [_one(found.found, feature)])
        assert float(found.p_value[feature]) == pytest.approx(min(1, factor * float(alone.p_value)))
    assert found.p_value[6:].isnan().all()


def _one(found: dict[Any, Detection], feature: int) -> dict[Any, Detection]:
    return {
        side: Detection(**{name: getattr(of, name)[[feature]] for name in Detection.__dataclass_fields__})
        for side, of in found.items()
    }


def test_choosing_the_better_of_two_useless_names_is_right_no_more_often_than_it_says() -> None:
    """Names of random samples: a p-value of at most .05 in at most 5 % of the features, though the better one is taken."""
    import numpy as np

    from mmmono.interpretability.detection import detection

    rng = np.random.default_rng(0)
    features, samples = 400, 600
    active = torch.from_numpy(rng.random((samples, features)) < 0.1)
    scores = torch.from_numpy(rng.normal(size=(2 * features, samples)))
    own = [torch.arange(features), torch.arange(features, 2 * features)]
    groups = np.arange(samples)
    tests: list[dict[Any, Detection]] = []
    for word in own:
        found = detection(scores, active, word, groups, range(2 * features))
        tests.append({"image": found, "text": found})
    p_value = winning_names(["ImgD"] * features, own, tests).p_value
    assert float((p_value <= 0.05).double().mean()) <= 0.05 + 2 * (0.05 * 0.95 / features) ** 0.5


def test_the_table_compares_both_names_by_class(tmp_path: Path) -> None:
    from mmmono.reporting.tables import save_table

    rows = [
        {"feature_set": "sae", "feature": feature, "class": of, "by": by, "name": name, "auroc": auroc, "wins": wins}
        for feature, of, pair in (
            (0, "ImgD", (("a", 0.6, False), ("b", 0.8, True))), (3, "ImgD", (("c", 0.7, True), ("c", 0.7, False))),
            (5, "TextD", (("d", 0.9, True), ("", None, False))),
        )
        for by, (name, auroc, wins) in zip(("vocabulary", "judge"), pair, strict=True)
    ]  # fmt: skip
    save_table(rows, tmp_path / "judged", list(NAMES.columns["judged"]))
    shown = NAMES.tables[-1].rows(Result(tmp_path, {}))
    columns = ("class", "asked", "replies with a name", "judge wins", "same name")
    assert [tuple(row[column] for column in columns) for row in shown] == [
        ("ImgD", 2, 2, 1, 1), ("TextD", 1, 0, 0, 0), ("live", 3, 2, 1, 1),
    ]  # fmt: skip
    assert shown[0]["difference [95 %]"] == "+0.100 [-1.000, +1.000]"  # t.interval(.95, 1, .1, .1) of SciPy is wider
    assert shown[1]["difference [95 %]"] == ""
    assert NAMES.tables[-1].rows(Result(tmp_path / "none", {})) == []
