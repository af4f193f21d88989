import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import CocoPairs, ImageTextPair, SkippedPair
from mmmono.data.coco_files import CocoSplit


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
    source = CocoPairs(CocoSplit(root), part_size=2)
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
    source = CocoPairs(CocoSplit(root), captions="all")
    keys = [item.key for item in source.read(0) if isinstance(item, ImageTextPair)]
    assert keys[:2] == ["val2017/000000000010#0", "val2017/000000000010#1"]
    assert len(keys) == 6
    assert source.fetch(keys[1]).caption == "caption 1 of 10"


@pytest.mark.parametrize("captions", ["first", "all"])
def test_names_that_look_like_other_names(root: Path, captions: Any) -> None:
    names = ["x.jpg", "x#0.jpg", "a.jpg", "a.png", "a.jpg.png"]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / "val2017" / name)
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": i, "caption": f"{n} {name}"} for i, name in enumerate(names) for n in range(2)],
    }
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    source = CocoPairs(CocoSplit(root), captions)
    pairs = [pair for pair in source.read(0) if isinstance(pair, ImageTextPair)]
    assert [source.fetch(pair.key).caption for pair in pairs] == [pair.caption for pair in pairs]
    groups = {(source.group(pair.key), pair.caption.split()[1]) for pair in pairs}
    assert len(groups) == len({group for group, _ in groups}) == 5, "an image is a group"


def test_missing_files_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="captions_train2017.json is not there"):
        CocoPairs(CocoSplit(root, "train"))
    (root / "annotations" / "instances_val2017.json").unlink()
    assert all(not i.labels for i in CocoPairs(CocoSplit(root)).read(0) if isinstance(i, ImageTextPair))
    (root / "annotations" / "captions_val2017.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        list(CocoPairs(CocoSplit(root)).read(0))


KINDS = ("captions", "instances")


def edit(root: Path, kind: str, change: Callable[[Any], Any]) -> CocoPairs:
    """The source after a change of an annotation file's content."""
    file = root / "annotations" / f"{kind}_val2017.json"
    content = json.loads(file.read_text())
    changed = change(content)
    file.write_text(json.dumps(content if changed is None else changed))
    return CocoPairs(CocoSplit(root))


def pairs_of(source: CocoPairs) -> dict[str, ImageTextPair]:
    items = [item for part in range(len(source.parts())) for item in source.read(part)]
    return {item.key.rpartition("/")[2]: item for item in items if isinstance(item, ImageTextPair)}


def each(content: Any, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    for entry in content[name]:
        change(entry)


def test_categories_without_supercategory(root: Path) -> None:
    source = edit(root, "instances", lambda c: each(c, "categories", lambda entry: entry.pop("supercategory")))
    assert pairs_of(source)["000000000010"].labels == {"category": "car"}


def test_areas_from_boxes(root: Path) -> None:
    def boxes(content: Any) -> None:
        for annotation, side in zip(content["annotations"], (9, 2, 90, 1), strict=True):
            del annotation["area"]
            annotation["bbox"] = [0, 0, side, side]

    assert pairs_of(edit(root, "instances", boxes))["000000000010"].labels["category"] == "horse"
    source = edit(root, "instances", lambda c: each(c, "annotations", lambda entry: entry.pop("bbox")))
    assert pairs_of(source)["000000000020"].labels["category"] == "horse"  # the only one, of no known area


@pytest.mark.parametrize("write", [str, float, lambda number: f"{number:06d}"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_written_in_other_ways(root: Path, kind: str, write: Callable[[int], Any]) -> None:
    expected = pairs_of(CocoPairs(CocoSplit(root)))
    source = edit(root, kind, lambda c: each(c, "images", lambda entry: entry.update(id=write(entry["id"]))))
    assert {key: (p.caption, p.labels) for key, p in pairs_of(source).items()} == {
        key: (p.caption, p.labels) for key, p in expected.items()
    }


def test_images_that_are_not_listed_are_counted(root: Path) -> None:
    def add(content: Any) -> None:
        content["annotations"] += [{"image_id": 99, "caption": "one"}, {"image_id": 99, "caption": "two"}]

    items = list(edit(root, "captions", add).read(0))
    assert next((i.key, i.reason) for i in items if isinstance(i, SkippedPair)) == (
        "val2017/99",
        "its image is not listed",
    )
    source = edit(root, "instances", lambda c: c["annotations"].append({"image_id": 98, "category_id": 1, "area": 9}))
    assert pairs_of(source)["000000000020"].labels["category"] == "horse"


def test_a_category_that_is_not_listed_gives_no_label(root: Path) -> None:
    labels = pairs_of(edit(root, "instances", lambda c: c["categories"].pop() and None))["000000000010"].labels
    assert labels == {"category": "horse", "supercategory": "animal"}


@pytest.mark.parametrize("value", [None, 3, ["a"], {"raw": "a"}, "", "  "])
def test_captions_that_are_no_text_are_none(root: Path, value: Any) -> None:
    def change(content: Any) -> None:
        content["annotations"][0]["caption"] = value  # of image 20

    assert pairs_of(edit(root, "captions", change))["000000000020"].caption == "caption 1 of 20"


BROKEN: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "a list": ("captions", lambda c: c["annotations"], "holds a list at its top"),
    "no images": (
        "captions",
        lambda c: c.pop("images") and None,
        "captions_val2017.json: the list images is not there",
    ),
    "no annotations": ("captions", lambda c: c.pop("annotations") and None, "the list annotations is not there"),
    "no captions": ("captions", lambda c: each(c, "annotations", lambda e: e.pop("caption")), "has a caption"),
    "images no list": ("captions", lambda c: c.update(images={}), "the list images is a dict"),
    "image no object": ("captions", lambda c: c["images"].append(3), r"images\[5\] is a int"),
    "no file name": ("captions", lambda c: c["images"][1].pop("file_name") and None, r"images\[1\] has no file_name"),
    "no id": ("captions", lambda c: c["images"][1].pop("id") and None, r"images\[1\] has no id"),
    "no image id": (
        "captions",
        lambda c: c["annotations"][0].pop("image_id") and None,
        r"annotations\[0\] has no image_id",
    ),
    "an id that is null": ("captions", lambda c: c["images"][0].update(id=None), r"images\[0\] has no id.*None"),
    "empty lists": ("captions", lambda c: c.update(images=[], annotations=[]), "the list images is empty"),
    "no categories": (
        "instances",
        lambda c: c.pop("categories") and None,
        "instances_val2017.json: the list categories",
    ),
    "no name": ("instances", lambda c: c["categories"][0].pop("name") and None, r"categories\[0\] has no name"),
    "no category": ("instances", lambda c: c["annotations"][0].pop("category_id") and None, "has no category_id"),
    "labels a list": ("instances", lambda c: [], "holds a list at its top"),
}


@pytest.mark.parametrize(("kind", "change", "says"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_names_file_and_field(
    root: Path, kind: str, change: Callable[[Any], Any], says: str
) -> None:
    source = edit(root, kind, change)
    with pytest.raises(DataError, match=says) as raised:
        source.parts()
    assert "\n" not in str(raised.value)


def test_labels_where_the_instances_list_no_images(root: Path) -> None:
    labels = pairs_of(edit(root, "instances", lambda c: c.pop("images") and None))["000000000010"].labels
    assert labels["category"] == "car"


def test_a_file_that_begins_with_a_byte_order_mark_or_is_nested_too_deep(root: Path) -> None:
    file = root / "annotations" / "captions_val2017.json"
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    assert len(pairs_of(CocoPairs(CocoSplit(root)))) == 3
    for content in (b"[" * 100_000, b"\xff\xfe\x00", b""):
        file.write_bytes(content)
        with pytest.raises(DataError, match="is no JSON"):
            CocoPairs(CocoSplit(root)).parts()


def test_file_names_with_folders_and_of_other_kinds(root: Path) -> None:
    names = ["a/1.jpg", "b/1.jpg", "b/1.png", "val2017/2.jpg", "..", "."]
    for name in names[:3]:
        (root / "val2017" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), "red").save(root / "val2017" / name)
    Image.new("RGB", (9, 9), "red").save(root / "val2017" / "2.jpg")
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, "caption": name} for i, name in enumerate(names)],
    }
    source = edit(root, "captions", lambda _: content)
    items = list(source.read(0))
    pairs = {item.key: item.caption for item in items if isinstance(item, ImageTextPair)}
    assert pairs == dict(
        zip(["val2017/a/1", "val2017/b/1.jpg", "val2017/b/1.png", "val2017/2"], names[:4], strict=True)
    )
    for key, caption in pairs.items():
        assert source.fetch(key).caption == caption
    assert [item.reason for item in items if isinstance(item, SkippedPair)] == ["no image", "no image"]


def test_the_fingerprint_follows_annotations_and_images(root: Path) -> None:
    first = CocoPairs(CocoSplit(root)).fingerprint()
    image = root / "val2017" / "000000000010.jpg"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    second = CocoPairs(CocoSplit(root)).fingerprint()
    image.unlink()
    third = CocoPairs(CocoSplit(root)).fingerprint()
    swapped = (root / "annotations" / "captions_val2017.json").read_text().replace("caption 0 of", "caption 9 of")
    (root / "annotations" / "captions_val2017.json").write_text(swapped)
    fourth = CocoPairs(CocoSplit(root)).fingerprint()
    (root / "annotations" / "instances_val2017.json").unlink()
    assert len({first, second, third, fourth, CocoPairs(CocoSplit(root)).fingerprint()}) == 5
    assert CocoPairs(CocoSplit(root), captions="all").fingerprint() != CocoPairs(CocoSplit(root)).fingerprint()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats()
    | st.sampled_from(["10", "x.jpg", "", "\0", "a/../b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name"]), inner, max_size=2),
    max_leaves=6,
)
FIELDS = ("id", "image_id", "file_name", "caption", "category_id", "area", "bbox", "iscrowd", "name", "supercategory")
ENTRIES = JSON | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6) | JSON, max_size=3)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    changes=st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), ENTRIES, max_size=3),
    entry=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
)
def test_any_file_is_read_or_reported_in_one_line(
    root: Path, kind: str, changes: dict[str, Any], entry: dict[str, Any]
) -> None:
    file = root / "annotations" / f"{kind}_val2017.json"
    before = file.read_text()
    content = {**json.loads(before), **changes}
    if (
        isinstance(content["annotations"], list)
        and content["annotations"]
        and isinstance(content["annotations"][0], dict)
    ):
        content["annotations"][0].update(entry)
    file.write_text(json.dumps(content))
    message = ""
    try:
        source = CocoPairs(CocoSplit(root))
        for item in source.read(0) if source.parts() else ():
            assert isinstance(item, SkippedPair) or (
                item.caption and all(isinstance(v, str) for v in item.labels.values())
            )
    except DataError as error:
        message = str(error)
    finally:
        file.write_text(before)
    assert "\n" not in message
