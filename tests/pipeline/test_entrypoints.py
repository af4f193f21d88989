"""What a user does, through the entrypoints."""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.dictionaries import Dictionary
from mmmono.features import FeatureStore, split_view
from mmmono.pipeline.command_line import quote
from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import Command, saved_rows

SMALL = ("dataset.limit=400", "trainer.max_steps=60", "trainer.min_steps=0", "trainer.val_check_interval=20")


def only(folder: Path, pattern: str, before: Collection[Path] = ()) -> Path:
    """The only finished artifact, apart from those that other tests have made before."""
    made = [path for path in folder.glob(pattern) if path not in before]
    found = [path for path in made if path.is_dir() and not path.name.endswith(".partial")]
    assert len(found) == 1, found
    return found[0]


def snapshot(root: Path) -> dict[str, int]:
    """Every artifact file with the time it was written; Hydra's own log of runs apart."""
    files = [f for f in root.rglob("*") if f.is_file() and "runs" not in f.relative_to(root).parts[:1]]
    return {str(file.relative_to(root)): file.stat().st_mtime_ns for file in files if file.suffix != ".lock"}


def test_extract_twice_changes_nothing(command: Command, artifacts: Path) -> None:
    before = snapshot(artifacts)
    again = command("extract", f"artifacts={artifacts}", "dataset.limit=400")
    assert again.status == 0
    assert "reused" in again.out
    assert snapshot(artifacts) == before
    store = FeatureStore(only(artifacts / "features", "drawingclip-openmoji-*"))
    assert (len(store), store.dim) == (400, 512)
    assert store.manifest is not None
    assert (store.manifest.model, store.manifest.dataset) == ("drawingclip", "openmoji")


def test_drawingclip_is_a_real_encoder_on_emoji_it_has_not_seen(artifacts: Path) -> None:
    """Held-out retrieval far above chance among the unseen ones of these 400."""
    view = split_view(FeatureStore(only(artifacts / "features", "drawingclip-openmoji-*")), "val")
    image, text = (
        torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1)
        for m in ("image", "text")  # type: ignore[arg-type]
    )
    ranks = ((text @ image.T) > (text * image).sum(1, keepdim=True)).sum(1)
    assert (ranks < 10).float().mean() > 2 * 10 / len(view)


def test_mds_trains_what_it_lacks_and_writes_figure_4(command: Command, artifacts: Path) -> None:
    own = ("features.k=24", "partition.n_sigma=1.2", "mds.min_pairs=3")  # an SAE of no other test
    arguments = (f"artifacts={artifacts}", *SMALL, "features=[raw,sae,ncl]", *own)
    there = {*(artifacts / "results").glob("*"), *(artifacts / "dictionaries").glob("*")}
    first = command("mds", *arguments)
    assert first.status == 0, first.err
    results = only(artifacts / "results", "mds-*", there)
    assert {"mds.png", "mds.pdf", "scores.parquet", "summary.parquet", "modality_gap.parquet"} <= {
        file.name for file in results.iterdir()
    }
    scores = pd.read_parquet(results / "scores.parquet")
    summary = {row["feature_set"]: row for row in saved_rows(results, "summary")}
    assert list(summary) == ["raw", "sae", "ncl"]
    assert scores.groupby("feature_set").size().to_dict() == {"raw": 512, "sae": 512, "ncl": 512}

    view = split_view(FeatureStore(only(artifacts / "features", "drawingclip-openmoji-*")), "val")
    z = {m: torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1) for m in ("image", "text")}  # type: ignore[arg-type]
    sae = Dictionary.from_pretrained(only(artifacts / "dictionaries", "sae-*", there))
    codes = {m: sae.encode(values, m).detach().numpy() for m, values in z.items()}  # type: ignore[arg-type]
    for name, (image, text) in {
        "raw": (z["image"].numpy(), z["text"].numpy()),
        "sae": (codes["image"], codes["text"]),
    }.items():
        mine = scores[scores.feature_set == name].set_index("feature")
        a, b = np.abs(image).astype(float), np.abs(text).astype(float)
        with np.errstate(invalid="ignore"):
            ratio = a / (a + b)
        informative = np.isfinite(ratio).sum(0)
        assert mine.informative_pairs.tolist() == informative.tolist()
        groups = np.array([len(set(view.groups()[column])) for column in np.isfinite(ratio).T])
        assert mine.informative_groups.tolist() == groups.tolist()
        live = groups >= 3
        expected = np.nanmean(ratio[:, live], axis=0)
        np.testing.assert_allclose(mine.mds[live], expected, atol=1e-5)
        assert summary[name]["mean"] == pytest.approx(expected.mean(), abs=1e-5)
        border = expected.mean() + 1.2 * expected.std()
        assert (
            summary[name]["ImgD"] == (mine["class"] == "ImgD").sum() == pytest.approx((expected > border).sum(), abs=1)
        )
        assert summary[name]["dead"] == (~live).sum()

    before = snapshot(artifacts)
    again = command("mds", *arguments)
    assert again.status == 0
    assert snapshot(artifacts) == before
    assert again.out == first.out


def test_a_sweep_extracts_once_and_trains_each(command: Command, artifacts: Path, tmp_path: Path) -> None:
    before = snapshot(artifacts / "features")
    arguments = (
        "-m",
        f"artifacts={artifacts}",
        *SMALL,
        "features=sae",
        "features.k=4,8",
        "features.expansion=0.25,0.5",
    )
    assert command("train", *arguments).status == 0
    assert snapshot(artifacts / "features") == before
    configs = [json.loads(file.read_text()) for file in (artifacts / "dictionaries").glob("sae-*/config.json")]
    assert {(c["k"], c["num_features"]) for c in configs} >= {(4, 128), (8, 128), (4, 256), (8, 256)}


def test_train_shows_curves_and_resumes_nothing_that_is_whole(command: Command, artifacts: Path) -> None:
    arguments = (f"artifacts={artifacts}", *SMALL, "features=ncl", "ncl.rep_relu=true")
    assert "trained" in command("train", *arguments).out
    assert "reused" in command("train", *arguments).out
    config = [
        f for f in (artifacts / "dictionaries").glob("ncl-*/config.json") if json.loads(f.read_text())["rep_relu"]
    ]
    assert len(config) == 1
    history = pd.read_parquet(config[0].parent / "history.parquet")
    assert history["step"].tolist() == [20, 40, 60]
    assert (config[0].parent / "training_curves.png").stat().st_size > 10_000


def test_own_shards_with_a_broken_image(command: Command, artifacts: Path, tmp_path: Path) -> None:
    files = []
    for i in range(12):
        files += [
            (f"{i}.jpg", jpeg((20 * i, 255 - 20 * i, 7 * i)) if i != 5 else b"broken"),
            (f"{i}.txt", f"color {i}".encode()),
        ]
    write_tar(tmp_path / "shard-0.tar", files)
    shards = f"dataset.shards={tmp_path}/shard-0.tar"
    run = command("extract", f"artifacts={artifacts}", "dataset=webdataset", shards)
    assert run.status == 0, run.err
    assert "skipped 1 unreadable pairs" in run.out
    store = FeatureStore(only(artifacts / "features", "drawingclip-webdataset-*"))
    assert len(store) == 11
    assert store.manifest is not None
    assert store.manifest.skipped == 1


def test_embeddings_that_are_there_already(command: Command, artifacts: Path, tmp_path: Path) -> None:
    """What clip-retrieval wrote: no manifest, pairs known by the paths of their images."""
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb", "metadata", "images"):
        (tmp_path / name).mkdir()
    for name in ("img_emb", "text_emb"):
        np.save(tmp_path / name / f"{name}_0.npy", rng.standard_normal((40, 6)).astype(np.float16))
    images = [f"images/{i}.jpg" for i in range(40)]
    for i, image in enumerate(images):
        (tmp_path / image).write_bytes(jpeg((6 * i, 255 - 6 * i, 0)))
    metadata = pd.DataFrame({"image_path": images, "caption": [f"image {i}" for i in range(40)]})
    metadata.to_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    arguments = (f"artifacts={artifacts}", "dataset=store", f"dataset.path={tmp_path}", "features=raw")
    run = command("mds", *arguments, "dataset.split=all", "mds.min_pairs=3")
    assert run.status == 0, run.err
    scores = pd.read_parquet(only(artifacts / "results", f"mds-{tmp_path.name}-*") / "scores.parquet")
    z = [np.load(tmp_path / n / f"{n}_0.npy").astype(float) for n in ("img_emb", "text_emb")]
    a, b = (np.abs(values) / np.linalg.norm(values, axis=1, keepdims=True) for values in z)
    np.testing.assert_allclose(scores.mds, (a / (a + b)).mean(0), atol=1e-4)
    run = command(
        "top_samples", *arguments, "top_samples.m=3", "top_samples.shown=3", "top_samples.show=[2]", "mds.min_pairs=3"
    )
    assert run.status == 0, run.err
    assert only(artifacts / "results", f"top_samples-{tmp_path.name}-*").joinpath("raw-chosen.png").exists()

    np.save(tmp_path / "text_emb" / "text_emb_0.npy", np.full((40, 6), np.nan, np.float16))
    run = command("mds", *arguments, "dataset.split=all")
    assert run.status == 1
    assert "holds text embeddings that are NaN or infinite, first row 0, dimension 0" in run.err


def test_a_store_of_another_model_is_refused(command: Command, artifacts: Path) -> None:
    store = only(artifacts / "features", "drawingclip-openmoji-*")
    run = command("mds", f"artifacts={artifacts}", "dataset=store", f"dataset.path={store}", "model=clip_rn50")
    assert run.status == 1
    assert "was made by model drawingclip, not by clip_rn50: choose that model" in run.err
    named = command(
        "mds", f"artifacts={artifacts}", "dataset=store", f"dataset.path={store}", "model=clip_rn50", "features=raw",
        "model.name=drawingclip",
    )  # fmt: skip
    assert "model.name=drawingclip" in run.err
    assert named.status == 0, named.err
    run = command("mds", f"artifacts={artifacts}", "dataset=store", f"dataset.path={store}", "features=raw")
    assert run.status == 0, run.err
    run = command("mds", f"artifacts={artifacts}", "dataset=store", f"dataset.path={artifacts}")
    assert run.status == 1
    assert "is no feature store" in run.err


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("mds", ["partition.n_sgma=2"], "no setting is called 'partition.n_sgma', did you mean 'partition.n_sigma'?"),
        ("mds", ["model=clip_rn5"], "model=clip_rn5 names no option: choose one of"),
        ("mds", ["dataset=webdataset"], "dataset=webdataset needs a value for dataset.shards"),
        ("extract", ["dataset=webdataset", "dataset.shards=nowhere/{0..3}.tar"], "matches no file: nowhere/0.tar"),
        (
            "extract",
            ["dataset.split=test"],
            "dataset.split=test is none of this dataset's: choose train, select, val, all",
        ),
        ("extract", ["model=declip_rn50", "model.checkpoint=gone.pth"], "model.checkpoint=gone.pth is no file"),
        (
            "extract",
            ["model=open_clip", "model.architecture=ViT-B-23", "model.pretrained=openai"],
            "ViT-B-23 is unknown",
        ),
        ("extract", ["extraction.precision=8"], "extraction.precision=8 is none of"),
        ("extract", ["device=gpu"], "device=gpu is no device"),
        ("train", ["features=raw"], "features=raw has nothing to train"),
        ("train", ["dataset.limit=400", "features.k=600"], "features.k=600 must lie between 1 and the 512"),
        ("train", ["dataset.limit=400", "training.batch_size=5000"], "training.batch_size=5000"),
        ("train", ["dataset.limit=400", "trainer.max_steps=9"], "trainer.max_steps=9 ends before the first validation"),
        ("mds", ["dataset.limit=400", "features=raw", "partition=counts"], "only 512 are live"),
        (
            "mds",
            ["dataset.limit=400", "features=raw", "partition.n_sigma=-1"],
            "partition.n_sigma=-1 must be at least 0",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, artifacts: Path, name: str, overrides: list[str], message: str
) -> None:
    before = snapshot(artifacts)
    run = command(name, f"artifacts={artifacts}", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in run.err
    finished = {f for f in snapshot(artifacts) if ".partial" not in f}
    assert finished == {f for f in before if ".partial" not in f}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("dataset.shards=a/b-{0000..0004}.tar", 'dataset.shards="a/b-{0000..0004}.tar"'),
        ("dataset.shards='a/b-{0..4}.tar'", "dataset.shards='a/b-{0..4}.tar'"),
        ("features={k:3}", "features={k:3}"),
        ("artifacts=${oc.env:HOME}/x", "artifacts=${oc.env:HOME}/x"),
        ("features=[raw,sae]", "features=[raw,sae]"),
        ("features.k=8,16", "features.k=8,16"),
        ("-m", "-m"),
    ],
)
def test_brace_ranges_pass_hydras_grammar(argument: str, expected: str) -> None:
    assert quote(argument) == expected
