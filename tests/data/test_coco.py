import json
from pathlib import Path

import pytest
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import CocoPairs, ImageTextPair, SkippedPair


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """COCO's files, with five images: one is missing, one has no caption, one no instance."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (10, 20, 30, 40, 50)]
    for image in images[:4]:
        Image.new("RGB", (20, 10), (image["id"] * 5, 0, 0)).save(tmp_path / "val2017" / str(image["file_name"]))
    captions = [{"image_id": i, "caption": f"caption {n} of\n{i}"} for n in range(2) for i in (20, 10, 30, 50)]
    instances = [
        {"image_id": 10, "category_id": 1, "area": 5.0, "iscrowd": 0},
        {"image_id": 10, "category_id": 2, "area": 50.0, "iscrowd": 0},
        {"image_id": 10, "category_id": 1, "area": 500.0, "iscrowd": 1},
        {"image_id": 20, "category_id": 1, "area": 1.0, "iscrowd": 0},
    ]
    categories = [
        {"id": 1, "name": "horse", "supercategory": "animal"},
        {"id": 2, "name": "car", "supercategory": "vehicle"},
    ]
    for kind, content in (
        ("captions", {"images": images, "annotations": captions}),
        ("instances", {"images": images, "annotations": instances, "categories": categories}),
    ):
        (tmp_path / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(content))
    return tmp_path


def test_reads_captions_and_the_largest_instances_label(root: Path) -> None:
    source = CocoPairs(root, part_size=2)
    items = [item for part in range(len(source.parts())) for item in source.read(part)]
    pairs = {item.key: item for item in items if isinstance(item, ImageTextPair)}
    assert list(pairs) == [f"val2017/{i:012d}" for i in (10, 20, 30)]
    assert pairs["val2017/000000000010"].caption == "caption 0 of 10"
    assert pairs["val2017/000000000010"].labels == {"category": "car", "supercategory": "vehicle"}
    assert pairs["val2017/000000000020"].labels["supercategory"] == "animal"
    assert pairs["val2017/000000000030"].labels == {}
    assert {i.key: i.reason for i in items if isinstance(i, SkippedPair)} == {
        "val2017/000000000040": "no caption",
        "val2017/000000000050": "no image",
    }
    again = source.fetch("val2017/000000000020")
    assert again.image.tobytes() == pairs["val2017/000000000020"].image.tobytes()
    with pytest.raises(DataError, match="no readable pair"):
        source.fetch("val2017/000000000099")


def test_all_captions(root: Path) -> None:
    source = CocoPairs(root, captions="all")
    keys = [item.key for item in source.read(0) if isinstance(item, ImageTextPair)]
    assert keys[:2] == ["val2017/000000000010#0", "val2017/000000000010#1"]
    assert len(keys) == 6
    assert source.fetch(keys[1]).caption == "caption 1 of 10"


def test_missing_files_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="captions_train2017.json is not there"):
        CocoPairs(root, split="train")
    (root / "annotations" / "instances_val2017.json").unlink()
    assert all(not i.labels for i in CocoPairs(root).read(0) if isinstance(i, ImageTextPair))
    (root / "annotations" / "captions_val2017.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        list(CocoPairs(root).read(0))
