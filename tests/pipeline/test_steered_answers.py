"""Steering a small LLaVA through its entrypoint: the table against the answers, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmmono.case_studies.adversarial.victims import Llava
from mmmono.interpretability.steer import SteeredEmbeddings
from mmmono.pipeline.images import SplitImages
from mmmono.pipeline.steering import Steerable
from tests.pipeline.conftest import Command, newest
from tests.tiny_llava import tiny_llava
from tests.vlm.tiny_transformers import write_tiny

COLORS = {"red": (200, 30, 20), "green": (30, 180, 40), "blue": (30, 60, 210), "small": (40, 40, 40)}
PAIRS = 240
TRAINED = (
    "features=sae", "features.k=6", "features.expansion=2", "trainer=cpu", "trainer.max_steps=60", "trainer.min_steps=0",
    "trainer.val_check_interval=30", "training.snapshot_every=null", "mds.min_pairs=2", "partition.n_sigma=0.5",
)  # fmt: skip
ASKED = (
    "victim.dtype=float32", "victim.max_new_tokens=4", "steered_answers.asked=3", "steered_answers.images=60",
    "steered_answers.k=5", "steered_answers.strengths=[1.0,4.0]", "device=cpu",
)  # fmt: skip


def write_pairs(file: Path) -> Path:
    """Images of four colors with their names in the captions."""
    rng = np.random.default_rng(0)
    with tarfile.open(file, "w") as tar:
        for i in range(PAIRS):
            word, color = list(COLORS.items())[i % len(COLORS)]
            png = io.BytesIO()
            noisy = np.clip(rng.normal(color, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((32, 32)).save(png, "PNG")
            for name, data in (("png", png.getvalue()), ("txt", f"a {word} photo".encode())):
                member = tarfile.TarInfo(f"{i:03d}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file


def llava_of_width(folder: Path, width: int) -> Path:
    """A LLaVA's configuration alone, with visual tokens of this width."""
    tiny_llava(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_size"] = width
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Overrides for a small CLIP with its pairs, and a LLaVA that sees with its tower."""
    folder = tmp_path_factory.mktemp("world")
    clip = write_tiny(folder / "clip", "clip")
    shard = write_pairs(folder / "pairs.tar")
    return {
        "model": f"artifacts={folder}/artifacts model=transformers model.id={clip} dataset=webdataset "
        f"dataset.shards={shard} dataset.split=all",
        "own": str(tiny_llava(folder / "own", clip)),
        "other": str(tiny_llava(folder / "other", write_tiny(folder / "other_clip", "clip", seed=1))),
        "narrow": str(tiny_llava(folder / "narrow")),
        "as_wide": str(llava_of_width(folder / "as_wide", 24)),
        "artifacts": f"{folder}/artifacts",
    }


def live_features(command: Command, world: dict[str, str]) -> list[int]:
    """Live features with the largest modality dominance scores."""
    run = command("mds", *world["model"].split(), *TRAINED)
    assert run.status == 0, run.err
    scores = pd.read_parquet(newest(Path(world["artifacts"]), "mds") / "scores.parquet")
    live = scores[scores["class"] != "dead"].sort_values("mds", ascending=False)
    return [int(feature) for feature in live.feature[:3]]


@pytest.mark.slow
def test_the_score_follows_from_what_is_said(
    command: Command, world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = live_features(command, world)
    names = ",".join(f"{f}:{word}" for f, word in zip(features, ("bread", "bake", "describe"), strict=True))
    given = (
        *world["model"].split(),
        *TRAINED,
        *ASKED,
        f"victim.model={world['own']}",
        f"steered_answers.names=[{names}]",
    )
    calls: list[int] = []
    whole = Llava.answers

    def interrupted(self: Llava, *asked: object) -> list[str]:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return whole(self, *asked)  # type: ignore[arg-type]

    monkeypatch.setattr(Llava, "answers", interrupted)
    assert command("steered_answers", *given).status == 130
    run = command("steered_answers", *given)
    assert run.status == 0, run.err
    assert len(calls) == 1 + 3 * (1 + 3 * 2)  # images × (as they are, features × strengths); one of them twice
    results = newest(Path(world["artifacts"]), "steered_answers")
    table, answers = (pd.read_parquet(results / f"{name}.parquet") for name in ("features", "answers"))
    assert len(table) == 3 * 2
    assert len(answers) == 3 * 3 * 3
    [samples] = pd.read_parquet(results / "samples.parquet").to_dict("records")
    assert samples == {
        "feature_set": "sae", "features": 3, "asked": 3, "images": 60, "silent": 0, "joint": 1,
    }  # fmt: skip
    plain = answers[answers.strength.isna()].set_index(["feature", "place"]).log_probability
    for row in table.itertuples():
        mine = answers[(answers.feature == row.feature) & (answers.strength == row.strength)].set_index(
            ["feature", "place"]
        )
        assert row.move == pytest.approx((mine.log_probability - plain).dropna().mean(), abs=1e-9)
        assert row.move_low <= row.move <= row.move_high
        assert np.isnan(row.stay)  # of two other names
        assert np.isnan(row.score)
        assert row.beyond == pytest.approx(row.move - row.control)
    moved = table.groupby("strength").move.apply(lambda m: m.abs().mean())
    assert moved[4.0] > moved[1.0] > 0
    said = [json.loads(line) for line in (results / "said-sae.jsonl").read_text().splitlines()]
    rows = answers.row[:3].tolist()
    likely = {(line["of"], line["row"]): line["log_probabilities"] for line in said}
    for column, row in enumerate(table[table.strength == 1].itertuples()):
        others = [
            likely[f"{other} 1.0", at][column] - likely["", at][column]
            for other in features if other != row.feature for at in rows
        ]  # fmt: skip
        assert row.control == pytest.approx(np.mean(others))
    assert (results / "steered_answers.png").stat().st_size > 5_000
    assert {file.name for file in (results / "images").iterdir()} == {Path(file).name for file in answers.image}
    assert "Steerability of answers, sae" in run.out
    assert "What is in this image?" in run.out


@pytest.mark.slow
def test_features_are_called_as_names_found(command: Command, world: dict[str, str]) -> None:
    pairs = (
        *world["model"].split(),
        "features=raw",
        "mds.min_pairs=2",
        "dataset.split=val",
        "dataset.train_fraction=0.4",
    )
    asked = (*ASKED, f"victim.model={world['own']}", "steered_answers.strengths=[1.0]")
    run = command("steered_answers", *pairs, *asked)
    assert run.status == 1
    assert "have no names yet, by which answers are judged: run experiments/names.py" in run.err
    run = command("names", *pairs, "names.phrase=1", "names.max_share=0.6", "names.active_share=0.2")
    assert run.status == 0, run.err
    named = pd.read_parquet(newest(Path(world["artifacts"]), "names") / "names.parquet")
    held = named[named.named & (named["class"] != "dead")]
    assert held.name.nunique() >= 2
    run = command("steered_answers", *pairs, *asked)
    assert run.status == 0, run.err
    table = pd.read_parquet(newest(Path(world["artifacts"]), "steered_answers") / "features.parquet")
    called = dict(zip(held.feature, held.name, strict=True))
    assert len(table) >= 2
    assert all(called[feature] == name for feature, name in zip(table.feature, table.name, strict=True))
    unnamed = int(named.feature[~named.named].iloc[0])
    run = command("steered_answers", *pairs, *asked, f"steered_answers.show=[{unnamed}]")
    assert run.status == 1
    assert f"steered_answers.show: no name of features [{unnamed}] of raw holds" in " ".join(run.err.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["victim.model={narrow}"], "have 32 dimensions, and features=sae are of embeddings with 24"),
        (["victim.model={narrow}"], "whose image tower has tokens of 48 dimensions: choose the model whose image tower"),
        (["victim.model={narrow}", "model=drawingclip"], "whose image tower has no tokens of a known width"),
        (["victim=clip_zero_shot"], "victim=ClipZeroShot has no visual tokens that a language model reads"),
        (["victim.model=/no/llava"], "victim.model=/no/llava cannot be had"),
        (["features=ncl"], "features=ncl has no way back to embeddings"),
        (["steered_answers.asked=1"], "steered_answers.asked=1 must be at least 2"),
        (["steered_answers.question=''"], "steered_answers.question= is empty"),
        (["steered_answers.how=push"], "steered_answers.how=push is none of set, scale, add"),
        (["steered_answers.names=[1:bread]"], "must call two features at least by their own names"),
        (["steered_answers.names=[1:bread,'2: bread']"], "must call two features at least by their own names"),
        (["steered_answers.names=[1:bread,2:bread]"], "must call two features at least by their own names"),
        (["steered_answers.names=[1:bread,2:bake]", "steered_answers.show=[1]"], "leave steered_answers.show out"),
        (["features=[raw,sae]", "steered_answers.names=[1:bread,2:bake]"], "are several: choose one"),
        (["steered_answers.per_class=0"], "steered_answers.per_class=0 steers nothing"),
        (["steered_answers.show=[]"], "steered_answers.show=[] steers nothing"),
        (["victim.repeats=5"], "victim.repeats=5 makes as many answers, of which one is kept"),
        ([], "have no names yet, by which answers are judged: run experiments/names.py"),
        # As wide as the tokens, but of a model with another tower:
        (["victim.model={as_wide}"], "have 24 dimensions, and features=sae are of embeddings with 24, of model="),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_before_any_work(
    command: Command, tmp_path: Path, world: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    overrides: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    model = world["model"].replace(world["artifacts"], str(tmp_path / "artifacts")).split()
    if "model=drawingclip" in overrides:
        model = [override for override in model if not override.startswith("model")]
    own = [] if any(o.startswith("victim=") for o in overrides) else [f"victim.model={world['own']}"]
    run = command(
        "steered_answers",
        *model,
        "features=sae",
        *own,
        *(o.format(**world) if "{" in o else o for o in overrides),
    )
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1, run.err
    assert message in " ".join(lines[0].split())
    assert not (tmp_path / "artifacts" / "features").exists()


def test_a_tower_of_equal_width_with_other_weights_is_refused_before_anything_is_asked(
    command: Command, world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Llava, "answers", lambda *_: pytest.fail("it was asked"))
    raw = ("features=raw", "mds.min_pairs=2", "steered_answers.names=[0:bread,1:bake]")
    run = command("steered_answers", *world["model"].split(), *raw, *ASKED, f"victim.model={world['other']}")
    assert run.status == 1
    assert "48 dimensions wide, is not the image tower of model=" in " ".join(run.err.split())


@pytest.mark.slow
def test_features_that_no_image_activates_are_left_out_unless_named(
    command: Command, world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_features(command, world)
    whole = Steerable.of

    def silenced(*given: object) -> Steerable:
        of = whole(*given)  # type: ignore[arg-type]
        return replace(of, reference=of.reference.index_fill(0, torch.tensor(live[:1]), 0.0))

    monkeypatch.setattr(Steerable, "of", silenced)
    found = dict(zip(live, ("bread", "bake", "describe"), strict=True))
    given = (*world["model"].split(), *TRAINED, *ASKED, "steered_answers.strengths=[1.0]")
    with monkeypatch.context() as patched:
        patched.setattr(Llava, "load", lambda *_: pytest.fail("the victim was loaded"))
        names = ",".join(f"{feature}:{name}" for feature, name in found.items())
        run = command("steered_answers", *given, f"victim.model={world['own']}", f"steered_answers.names=[{names}]")
        assert run.status == 1
        line = " ".join(run.err.split())
        assert f"steered_answers.names: none of 60 images activates features [{live[0]}] of sae" in line

        monkeypatch.setattr("mmmono.analyses.steered_answers.analysis.check_names", lambda *_: None)
        monkeypatch.setattr(
            "mmmono.analyses.steered_answers.analysis.names_of", lambda *_: {f: found[f] for f in live[:2]}
        )
        run = command("steered_answers", *given, f"victim.model={world['own']}")
        assert run.status == 1
        assert "activates 1 of 2 named features, and two are needed at least" in " ".join(run.err.split())
    monkeypatch.setattr("mmmono.analyses.steered_answers.analysis.names_of", lambda *_: found)
    run = command("steered_answers", *given, f"victim.model={world['own']}")
    assert run.status == 0, run.err
    results = newest(Path(world["artifacts"]), "steered_answers")
    assert pd.read_parquet(results / "features.parquet").feature.tolist() == live[1:]
    assert pd.read_parquet(results / "samples.parquet").silent.tolist() == [1]
    assert "1 more, which no image activates, were left out" in " ".join(run.out.split())


@pytest.mark.slow
def test_answers_belong_to_their_images_whatever_can_be_read_when_a_run_goes_on(
    command: Command, world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that cannot be read at first is asked about later; the answers to the others stay theirs."""
    given = (
        *world["model"].split(), "features=raw", "mds.min_pairs=2", *ASKED, f"victim.model={world['own']}",
        "steered_answers.strengths=[1.0]", "steered_answers.names=[0:bread,1:bake]", "seed=3",
    )  # fmt: skip
    asked: list[np.ndarray] = []
    pairs = SplitImages.pairs
    broken: set[int] = set()
    stops = [4]

    def answers(self: Llava, image: Image.Image, *rest: object) -> list[str]:
        if len(asked) == stops[0]:
            raise KeyboardInterrupt
        asked.append(np.asarray(image))
        return [f"answer {len(asked)}"]

    def readable(self: SplitImages, rows: list[int], title: str | None = None) -> object:
        wanted = list(rows)
        broken.update(wanted[:2] if not broken else ())
        return ((row, None if row in broken and stops[0] == 4 else pair) for row, pair in pairs(self, wanted, title))

    monkeypatch.setattr(Llava, "answers", answers)
    monkeypatch.setattr(SplitImages, "pairs", readable)
    assert command("steered_answers", *given).status == 130
    stops[0] = -1
    run = command("steered_answers", *given)
    assert run.status == 0, run.err
    results = newest(Path(world["artifacts"]), "steered_answers")
    table = pd.read_parquet(results / "answers.parquet")
    assert broken & set(table.row)
    for row in table.itertuples():
        image = asked[int(row.answer.removeprefix("answer ")) - 1]
        assert np.array_equal(image, np.asarray(Image.open(results / row.image)))


@pytest.mark.slow
def test_given_embeddings_as_wide_as_tokens_are_of_tokens_as_they_are(
    command: Command, world: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw feature is a number of each token, which is raised by strength times reference times the token's length."""
    rng = np.random.default_rng(0)
    embeddings = {side: rng.standard_normal((40, 48)).astype(np.float32) for side in ("image", "text")}
    for side, values in embeddings.items():
        np.save(tmp_path / f"{side}.npy", values)
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    rows = pd.DataFrame({"image_path": [f"{i}.png" for i in range(40)], "caption": [f"image {i}" for i in range(40)]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    files = [f"dataset.{side}={tmp_path}/{side}.npy" for side in embeddings]
    seen: list[torch.Tensor] = []
    whole = SteeredEmbeddings.__call__

    def steered(self: SteeredEmbeddings, given: torch.Tensor) -> torch.Tensor:
        moved = whole(self, given)
        seen.append((moved - given) / given.norm(dim=-1, keepdim=True))
        return moved

    monkeypatch.setattr(SteeredEmbeddings, "__call__", steered)
    given = (
        f"artifacts={tmp_path}/artifacts", "dataset=store", *files, f"dataset.metadata={tmp_path}/rows.csv",
        "dataset.split=all", "model.name=tokens", "features=raw", "mds.min_pairs=2", *ASKED,
        f"victim.model={world['own']}", "steered_answers.strengths=[4.0]", "steered_answers.images=30",
    )  # fmt: skip
    run = command("steered_answers", *given, "steered_answers.names=[0:bread,1:bake]")
    assert run.status == 0, run.err
    results = newest(tmp_path / "artifacts", "steered_answers")
    assert pd.read_parquet(results / "samples.parquet").joint.tolist() == [0]
    assert "are steered as they are" in " ".join(run.out.split())
    table = pd.read_parquet(results / "features.parquet").set_index("feature")
    changes = torch.cat([one.reshape(-1, 48) for one in seen])
    wanted = torch.zeros(2, 48)
    for feature in (0, 1):
        wanted[feature, feature] = 4.0 * float(table.reference[feature])
    assert torch.stack([(changes - one).abs().amax(1) for one in wanted]).amin(0).max() < 1e-4
    run = command("steered_answers", *given, "steered_answers.names=[0:bread,100:bake]")
    assert run.status == 1
    assert "steered_answers.names names feature 100, but raw has 0 to 47" in " ".join(run.err.split())
