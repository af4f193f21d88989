"""Steering a small generator through its entrypoint: what it is given, the tables against the images, what is refused."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmmono.case_studies.generators.embedding_decoder import EmbeddingDecoder
from mmmono.dictionaries import Dictionary
from mmmono.pipeline.images import SplitImages
from mmmono.pipeline.steering import Steerable
from mmmono.vlm import load_transformers
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_steered_answers import PAIRS, TRAINED, write_pairs
from tests.tiny_diffusion import ARCHITECTURE, tiny_encoder, tiny_sd2, tiny_unclip
from tests.vlm.tiny_transformers import write_tiny

TINY = (
    "generator.pixels=16", "generator.components=32", "generator.width=32", "generator.depth=1",
    "generator.train_steps=30", "generator.steps=3", "device=cpu",
)  # fmt: skip
FEW = (
    "steered_images.prompts=[red,blue,green]", "steered_images.seeds=2", "steered_images.strengths=[0.0,2.0]",
    "steered_images.per_class=1", "steered_images.controls=2", "steered_images.images=60", "steered_images.k=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Overrides for a small CLIP with its pairs."""
    folder = tmp_path_factory.mktemp("world")
    shard, clip = write_pairs(folder / "pairs.tar"), write_tiny(folder / "clip", "clip")
    pairs = f"dataset=webdataset dataset.shards={shard} dataset.split=all"
    return {
        "given": f"artifacts={folder}/artifacts model=transformers model.id={clip} {pairs}".split(),
        "artifacts": folder / "artifacts",
        "pairs": pairs.split(),
        "clip": str(clip),
        "shard": shard,
    }


def staying(
    results: Path, images: pd.DataFrame, dictionary: Dictionary, world: dict[str, Any], feature: int, strength: float
) -> float:
    """In numpy: cosine of what else is activated before and after, each minus the mean of what is drawn without steering."""
    encoder = load_transformers(world["clip"], "tiny")
    own, codes = images[images.feature == feature], []
    for kept in (own.strength.isna(), own.strength == strength):
        rows = own[kept].sort_values(["prompt", "seed"])
        pixels = torch.stack([encoder.preprocess(Image.open(results / file).convert("RGB")) for file in rows.image])
        with torch.inference_mode():
            unit = torch.nn.functional.normalize(encoder.encode_image(pixels), dim=1)
            codes.append(dictionary.encode(unit, "image").double().numpy().reshape(3, 2, -1).mean(1))
    before, after = (np.delete(side - codes[0].mean(0), feature, axis=1) for side in codes)
    return float(np.mean((before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)))


@pytest.mark.slow
def test_what_is_drawn_and_how_it_is_scored(
    command: Command, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, Tensor, tuple[int, ...]]] = []
    whole = EmbeddingDecoder.generate

    def generate(self: EmbeddingDecoder, prompt: str, embeddings: Tensor, seeds: range) -> list[Image.Image]:
        if len(drawn) == 9:
            drawn.append((prompt, embeddings, tuple(seeds)))
            raise KeyboardInterrupt
        drawn.append((prompt, embeddings, tuple(seeds)))
        return whole(self, prompt, embeddings, seeds)

    monkeypatch.setattr(EmbeddingDecoder, "generate", generate)
    given = (*world["given"], *TRAINED, *TINY, *FEW)
    assert command("steered_images", *given).status == 130
    run = command("steered_images", *given)
    assert run.status == 0, run.err
    results = newest(world["artifacts"], "steered_images")
    names = ("features", "images", "most", "controls", "samples", "summary")
    table, images, most, controls, samples, summary = (pd.read_parquet(results / f"{n}.parquet") for n in names)
    chosen = list(dict.fromkeys(table.feature))
    others = set(controls.control)
    assert not others & set(chosen)
    assert controls.groupby("feature").control.nunique().eq(2).all()
    assert samples.to_dict("records")[0].items() >= {"features": len(chosen), "prompts": 3, "seeds": 2}.items()
    # Plain and each steered feature at each strength, for each prompt; what was interrupted is drawn again, no more.
    assert len(drawn) == 1 + 3 * (1 + 2 * (len(chosen) + len(others)))
    assert {seeds for _, _, seeds in drawn} == {(0, 1)}

    # What the generator is given: the prompt's embedding, moved along the atom of one feature until its code is set, and
    # brought back to its length.
    dictionary = Dictionary.from_pretrained(next((world["artifacts"] / "dictionaries").glob("sae-*/")))
    plain = {prompt: embeddings[0, 0] for prompt, embeddings, _ in drawn[:3]}
    reference = table.set_index("feature").reference.groupby(level=0).first()
    expected = []
    with torch.no_grad():
        for feature in chosen:
            atom = dictionary.atoms[feature]
            for text in plain.values():
                code = dictionary.encode(torch.nn.functional.normalize(text, dim=0)[None], "text")[0, feature]
                for strength in (0.0, 2.0):
                    moved = text + text.norm() * (strength * reference[feature] - code) * atom
                    expected.append(moved * text.norm() / moved.norm())
    given_later = torch.stack([embeddings[0, 0] for _, embeddings, _ in drawn[3:]])
    for one in expected:
        assert (given_later - one).abs().amax(1).min() < 1e-4

    # The table follows from the images.
    values = images.groupby(["feature", "strength", "prompt"], dropna=False)[["activation", "likeness"]].mean()
    for row in table.itertuples():
        mine = [values.loc[row.feature, row.strength, prompt] for prompt in ("red", "blue", "green")]
        before = (
            images[(images.feature == row.feature) & images.strength.isna()]
            .groupby("prompt")[["activation", "likeness"]]
            .mean()
        )
        moved = np.array([m - before.loc[p] for m, p in zip(mine, ("red", "blue", "green"), strict=True)])
        assert row.move == pytest.approx(moved[:, 0].mean(), abs=1e-6)
        assert row.likeness == pytest.approx(moved[:, 1].mean(), abs=1e-6)
        assert row.beyond == pytest.approx(row.move - row.control)
        assert row.likeness_beyond == pytest.approx(row.likeness - row.likeness_control)
        assert row.score == pytest.approx(max(row.move, 0) * max(row.stay, 0))
        assert row.stay == pytest.approx(
            staying(results, images, dictionary, world, row.feature, row.strength), abs=1e-4
        )
    assert (summary.features.groupby(summary["class"]).first() <= 1).all()
    assert most.activation.groupby(most.feature).sum().to_numpy() == pytest.approx(5)  # of k = 5, over the reference
    for file in (*images.image, *most.image):
        assert (results / file).exists()
    sheets = {f"sae-sheet-{feature}" for feature in chosen}
    assert {file.stem for file in results.glob("*.png")} == {"steered_images", *sheets}
    assert "Steerability of a generator, sae" in run.out


def test_raising_a_feature_by_nothing_draws_the_same(command: Command, world: dict[str, Any]) -> None:
    settings = (
        "steered_images.how=add", "steered_images.strengths=[0.0,3.0]", "steered_images.show=[0,1]",
        "random_sets=size",
    )  # fmt: skip
    run = command("steered_images", *world["given"], *TINY, *FEW, *settings, "features=raw", "mds.min_pairs=2")
    assert run.status == 0, run.err
    table = pd.read_parquet(newest(world["artifacts"], "steered_images") / "features.parquet")
    nothing, something = (table[table.strength == strength] for strength in (0.0, 3.0))
    assert set(table.feature) == {0, 1}
    assert (nothing.move == 0).all()
    assert (nothing.likeness == 0).all()
    assert nothing.stay.to_numpy() == pytest.approx(1.0)
    assert (something.move != 0).all()
    assert (something.stay < 1).all()
    assert "random ones beside them; 3 prompts" in " ".join(run.out.split())


@pytest.mark.slow
def test_without_keep_length_embeddings_move_freely(
    command: Command, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strengths that differ in the seventh digit are drawn apart."""
    drawn: list[Tensor] = []
    whole = EmbeddingDecoder.generate

    def generate(self: EmbeddingDecoder, prompt: str, embeddings: Tensor, seeds: range) -> list[Image.Image]:
        drawn.append(embeddings[0, 0])
        return whole(self, prompt, embeddings, seeds)

    monkeypatch.setattr(EmbeddingDecoder, "generate", generate)
    settings = ("steered_images.keep_length=false", "steered_images.strengths=[3.0,3.0000001]")
    shown = ("steered_images.show=[0,1]", "features=raw", "mds.min_pairs=2", "steered_images.how=add")
    run = command("steered_images", *world["given"], *TINY, *FEW, *settings, *shown)
    assert run.status == 0, run.err
    folder = newest(world["artifacts"], "steered_images")
    table, controls = (pd.read_parquet(folder / f"{name}.parquet") for name in ("features", "controls"))
    others = controls.control.nunique()
    assert len(drawn) == 3 * (1 + 2 * (2 + others))
    first = table[table.feature == 0].iloc[0]
    moved = drawn[0].clone()
    moved[0] += drawn[0].norm() * 3.0 * first.reference
    assert min(float((one - moved).abs().max()) for one in drawn[3:]) < 1e-4
    energies = (controls.control_energy - controls.energy).abs() / controls.energy
    [mismatch] = pd.read_parquet(folder / "samples.parquet").mismatch
    assert mismatch == pytest.approx(energies.max(), rel=1e-4)
    assert f"(energy within {mismatch:.0%} of theirs)" in " ".join(run.out.split())


@pytest.mark.slow
def test_a_resumed_run_takes_the_same_reference_image(
    command: Command, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some generators give the prompts the length of an image's embedding; what is drawn later must have that length too."""
    seen: list[np.ndarray] = []
    whole, pairs = EmbeddingDecoder.encode, SplitImages.pairs
    broken: set[int] = set()

    def encode(self: EmbeddingDecoder, prompt: str, reference: Image.Image) -> tuple[Tensor, Tensor]:
        seen.append(np.asarray(reference))
        return whole(self, prompt, reference)

    def readable(self: SplitImages, rows: list[int], title: str | None = None) -> object:
        return ((row, None if row in broken else pair) for row, pair in pairs(self, rows, title))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddingDecoder, "encode", encode)
    monkeypatch.setattr(SplitImages, "pairs", readable)
    given = (
        *world["given"],
        *TINY,
        *FEW,
        "features=raw",
        "mds.min_pairs=2",
        "steered_images.strengths=[1.0]",
        "seed=5",
    )
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingDecoder, "generate", interrupted)
        broken.update(range(PAIRS // 8))
        assert command("steered_images", *given).status == 130
    broken.clear()
    run = command("steered_images", *given)
    assert run.status == 0, run.err
    assert len(seen) == 2 * 3
    assert all(np.array_equal(one, seen[0]) for one in seen)


@pytest.mark.slow
def test_a_generator_that_draws_the_nearest_image_is_steered_as_far_as_retrieval(
    command: Command, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of such a generator it is known what it draws; the strongest steering draws what activates the feature most."""
    encoder = load_transformers(world["clip"], "tiny")
    with tarfile.open(world["shard"]) as tar:
        files = [tar.extractfile(name).read() for name in tar.getnames() if name.endswith(".png")]  # type: ignore[union-attr]
    pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    with torch.inference_mode():
        embedded = encoder.encode_image(torch.stack([encoder.preprocess(picture) for picture in pictures]))
    unit = torch.nn.functional.normalize(embedded, dim=1)
    texts: dict[str, Tensor] = {}

    def generate(self: EmbeddingDecoder, prompt: str, embeddings: Tensor, seeds: range) -> list[Image.Image]:
        texts.setdefault(prompt, embeddings[0, 0])  # the first is the prompt as it is
        return [pictures[int((unit @ one).argmax())] for one in embeddings[:, 0]]

    monkeypatch.setattr(EmbeddingDecoder, "generate", generate)
    settings = (
        "steered_images.strengths=[1.0,1000.0]",
        "steered_images.per_class=3",
        "features=raw",
        "mds.min_pairs=2",
    )
    run = command("steered_images", *world["given"], *TINY, *FEW, *settings)
    assert run.status == 0, run.err
    table, images = (
        pd.read_parquet(newest(world["artifacts"], "steered_images") / f"{n}.parquet") for n in ("features", "images")
    )
    reference = table.set_index("feature").reference.groupby(level=0).first()
    for row in images[images.strength.notna()].itertuples():
        moved = texts[row.prompt].clone()
        moved[row.feature] = texts[row.prompt].norm() * row.strength * reference[row.feature]
        found = unit[int((unit @ moved).argmax()), row.feature]
        assert row.activation == pytest.approx(float(found) / reference[row.feature], abs=1e-4)
    strong = table[table.strength == 1000]
    assert (strong.move > strong.control).all()
    assert strong.move.mean() > strong.control.mean() + 0.1
    assert strong.move.mean() > table[table.strength == 1].move.mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "generator", ["sd2_unclip", "sd2 generator.projected=true"], ids=["joint space", "projected tokens"]
)
def test_diffusers_pipelines_are_steered_too(
    command: Command, tmp_path: Path, world: dict[str, Any], generator: str
) -> None:
    checkpoint = tiny_encoder(tmp_path / "clip")
    name, *settings = generator.split()
    weights = (tiny_unclip if name == "sd2_unclip" else tiny_sd2)(tmp_path / "made", checkpoint)
    run = command(
        "steered_images", f"artifacts={tmp_path}/artifacts", "model=open_clip", f"model.architecture={ARCHITECTURE}",
        f"model.pretrained={checkpoint}", *world["pairs"], *TRAINED, *FEW, f"generator={name}", *settings,
        f"generator.encoder={ARCHITECTURE}", f"generator.weights={weights}", "generator.steps=1", "device=cpu",
        "steered_images.seeds=1", "steered_images.controls=1", "steered_images.strengths=[4.0]",
    )  # fmt: skip
    assert run.status == 0, run.err
    folder = newest(tmp_path / "artifacts", "steered_images")
    images, table = (pd.read_parquet(folder / f"{name}.parquet") for name in ("images", "features"))
    assert len(images) == 2 * 3 * table.feature.nunique()  # as they are and steered, three prompts
    pictures = images.image.map(lambda file: np.asarray(Image.open(folder / file).convert("RGB"), dtype=float))
    images["picture"] = list(pictures)
    for _, pair in images.groupby(["feature", "prompt"]):
        plain, steered = (pair[pair.strength.isna() == as_it_is].iloc[0] for as_it_is in (True, False))
        assert not np.array_equal(plain.picture, steered.picture)
    for row in table.itertuples():
        mine = images[images.feature == row.feature]
        means = mine.groupby(mine.strength.isna()).activation.mean()
        assert row.move == pytest.approx(means[False] - means[True], abs=1e-6)
        assert np.isfinite([row.control, row.likeness, row.stay]).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator=sd2"], "generator=sd2 draws from tokens, which are not in the joint space"),
        (["features=ncl"], "features=ncl has no way back to embeddings"),
        (["embedder=clip"], "embedder=clip is what is intervened on"),
        (["steered_images.prompts=[animal]"], "steered_images.prompts=['animal'] must be two texts at least"),
        (["steered_images.prompts=[a,'']"], "steered_images.prompts=['a', ''] must be two texts at least"),
        (["steered_images.seeds=0"], "steered_images.seeds=0 must be at least 1"),
        (["steered_images.controls=0"], "steered_images.controls=0 must be at least 1"),
        (["steered_images.strengths=[2.0,1.0]"], "steered_images.strengths=[2.0, 1.0] must ascend"),
        (["steered_images.show=[1,1]"], "steered_images.show has 1 twice"),
        (["steered_images.per_class=0"], "steered_images.per_class=0 steers nothing"),
        (["steered_images.k=60", "steered_images.images=60"], "steered_images.k=60 images that activate a feature most"),
        (["steered_images.show=[]"], "steered_images.show=[] steers nothing"),
        (["random_sets=shape"], "random_sets=shape is none of"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_before_any_work(
    command: Command, tmp_path: Path, world: dict[str, Any], overrides: list[str], message: str
) -> None:
    given = [f"artifacts={tmp_path}/artifacts", *world["given"][1:], "features=sae", "device=cpu"]
    run = command("steered_images", *given, *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1, run.err
    assert message in " ".join(lines[0].split())
    assert not (tmp_path / "artifacts" / "features").exists()


def test_a_feature_that_does_not_exist_is_named(command: Command, world: dict[str, Any]) -> None:
    run = command("steered_images", *world["given"], *TRAINED, *TINY, *FEW, "steered_images.show=[100000]")
    assert run.status == 1
    assert "steered_images.show names feature 100000, but sae has 0 to" in " ".join(run.err.split())


def test_without_a_feature_that_an_image_activates_there_is_nothing_to_steer(
    command: Command, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Steerable.of
    monkeypatch.setattr(
        Steerable, "of", lambda *given: replace(of := whole(*given), reference=torch.zeros_like(of.reference))
    )
    monkeypatch.setattr(EmbeddingDecoder, "generate", lambda *_: pytest.fail("something was drawn"))
    run = command("steered_images", *world["given"], *TINY, *FEW, "features=raw", "mds.min_pairs=2", "seed=7")
    assert run.status == 1
    assert "live features is activated by any of 60 images, so that there is nothing to steer" in " ".join(
        run.err.split()
    )
