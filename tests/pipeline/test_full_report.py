"""The report of a full run: each table from the model the paper used for it, and what it rests on."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from PIL import Image

from mmmono.pipeline.running import CONF
from tests.pipeline.conftest import Command, newest
from tests.pipeline.random_features import put_random_features

ROWS = [
    {"key": f"k/{i}", "caption": f"number {i}", "locator": "", "group": str(i // 2), "supercategory": "ab"[i // 2 % 2]}
    for i in range(60)
]


def composed(entrypoint: str, *overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entrypoint, list(overrides))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a CC3M and a COCO."""
    folder = tmp_path_factory.mktemp("data")
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, "PNG")
    for number, name in enumerate(("train", "validation")):
        (folder / "cc3m").mkdir(exist_ok=True)
        with tarfile.open(folder / "cc3m" / f"cc3m-{name}-0000.tar", "w") as tar:
            for file, content in (("0.png", png.getvalue()), ("0.txt", f"red {number}".encode())):
                member = tarfile.TarInfo(file)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for split in ("train", "val"):
        (folder / "coco" / f"{split}2017").mkdir(parents=True)
        for kind in ("captions", "instances"):
            file = folder / "coco" / "annotations" / f"{kind}_{split}2017.json"
            file.parent.mkdir(exist_ok=True)
            image = {"id": 1, "file_name": "1.png"}
            caption = {"id": 1, "image_id": 1, "caption": "red"}
            annotations = [caption] if kind == "captions" else []
            content = {"images": [image], "annotations": annotations, "categories": [], "of": split}
            file.write_text(json.dumps(content))
        (folder / "coco" / f"{split}2017" / "1.png").write_bytes(png.getvalue())
    return str(folder / "cc3m"), str(folder / "coco")


@pytest.mark.slow
def test_each_table_is_of_the_model_the_paper_used(command: Command, tmp_path: Path, data: tuple[str, str]) -> None:
    cc3m, coco = data
    root = f"artifacts={tmp_path}"
    paper = (root, "model=clip_rn50", "dataset=cc3m", f"dataset.root={cc3m}", "features=raw", "mds.min_pairs=1")
    put_random_features(composed("mds", *paper), ROWS, 16, skipped=5)
    assert command("mds", *paper).status == 0
    assert command("mds", *paper, "partition=margin", "partition.margin=0.01").status == 0
    checkpoint = tmp_path / "declip.pth.tar"
    checkpoint.write_bytes(b"a checkpoint that nobody reads")
    declip = (*paper, "model=declip_rn50", f"model.checkpoint={checkpoint}")

    run = command("report", *paper)
    assert run.status == 0, run.err
    page = (newest(tmp_path, "report") / "index.html").read_text()
    assert "60 pairs in 30 groups" in page
    assert "13,443 pairs" in page
    assert "5 of 65 (7.7 %): 5 × no image" in page
    assert "There, under other settings: <bdi>partition by margin = 0.01" in page
    assert "DeCLIP&#39;s panel of Figure 4" in page
    assert "make section-2.2 MODEL=clip_rn50 DATASET=cc3m" in page
    assert "COCO=/path/to/coco" in page

    h14 = (root, "+paper=table1", f"dataset.root={coco}", "ablation.split=val", "partition.image_dominant=5",
           "partition.text_dominant=7", "mds.min_pairs=1")  # fmt: skip
    put_random_features(composed("ablation", *h14), ROWS, 16)
    run = command("ablation", *h14)
    assert run.status == 0, run.err
    put_random_features(composed("mds", *declip), ROWS, 16)
    assert command("mds", *declip).status == 0
    run = command("report", *paper)
    assert run.status == 0, run.err
    folder = newest(tmp_path, "report")
    page = (folder / "index.html").read_text()
    assert (
        "of clip_vit_h14 on coco, which the paper used for it, sorted by image_dominant = 5, text_dominant = 7" in page
    )
    assert "DeCLIP&#39;s panel of Figure 4" not in page
    assert "Figure 4, DeCLIP" in page
    assert {"mds.md", "mds-declip.md", "table1-raw.md"} <= {file.name for file in (folder / "tables").iterdir()}
    assert (
        "10,000 COCO pairs, supercategories" not in page.split("What differs from the paper")[1].split("</section>")[0]
    )

    # Of another model Table 1 is that model's own, or missing.
    run = command("report", *declip)
    assert run.status == 0, run.err
    assert not (newest(tmp_path, "report") / "tables" / "table1-raw.md").exists()


@pytest.mark.slow
def test_a_result_of_another_partition_seed_or_score_does_not_belong(
    command: Command, tmp_path: Path, data: tuple[str, str]
) -> None:
    root = f"artifacts={tmp_path}"
    common = (root, "model=clip_rn50", "dataset=cc3m", f"dataset.root={data[0]}", "features=raw", "mds.min_pairs=1")
    put_random_features(composed("mds", *common), ROWS, 16)
    assert command("mds", *common).status == 0
    certainty = ("certainty.n_permutations=20", "certainty.n_bootstrap=5", "certainty.n_halves=2", "seed=1")
    assert command("certainty", *common, *certainty).status == 0
    run = command("report", *common, "partition=margin", "mds.undefined=half", "seed=2")
    assert run.status == 0, run.err
    folder = newest(tmp_path, "report")
    page = (folder / "index.html").read_text()
    assert list((folder / "tables").iterdir()) == []
    assert "There, under other settings: <bdi>mds.undefined=skip, partition by n_sigma = 1.0" in page
    assert "seed=1" in page
    assert command("report", *common).status == 0
    assert (newest(tmp_path, "report") / "tables" / "mds.md").exists()
