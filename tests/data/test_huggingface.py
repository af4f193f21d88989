"""Datasets that the library `datasets` wrote, as pairs."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mmmono.core.errors import ConfigError, DataError, MmmonoError
from mmmono.data.huggingface import IMAGES, HubDataset, HuggingFacePairs
from mmmono.data.pairs import ImageTextPair, SkippedPair
from mmmono.data.tables import TableReading
from mmmono.features import FeatureStore, extract_features
from mmmono.pipeline.huggingface_dataset import HuggingFace
from tests.data.test_listed_pairs import put_image, shade_of
from tests.fakes import ColorEncoder

datasets = pytest.importorskip("datasets", reason="the hf extra brings the library datasets")
ROWS = 7


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("mmmono.data.huggingface.PART", 3)


def rows(count: int = ROWS) -> Any:
    """Images of one color each, with two captions and a class."""
    images = [Image.new("RGB", (8, 6), (30 * number, 10, 200)) for number in range(count)]
    content = {
        "other": [f"{number}" for number in range(count)],
        "image": images,
        "captions": [[f"{30 * number} 10", " ", f"{number} again"] for number in range(count)],
        "kind": [number % 2 for number in range(count)],
    }
    kinds = {
        "other": datasets.Value("string"),
        "image": datasets.Image(),
        "captions": datasets.Sequence(datasets.Value("string")),
        "kind": datasets.ClassLabel(names=["cat", "dog"]),
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two Parquet files for training and one for validation."""
    data = tmp_path / "pairs" / "data"
    data.mkdir(parents=True)
    rows().select(range(4)).to_parquet(data / "train-00000-of-00002.parquet")
    rows().select(range(4, ROWS)).to_parquet(data / "train-00001-of-00002.parquet")
    rows(2).to_parquet(data / "validation-00000-of-00001.parquet")
    return data.parent


def source(folder: Path, split: str = "train", streaming: bool = False, **reading: Any) -> HuggingFacePairs:
    return HuggingFacePairs(HubDataset(str(folder), split, streaming=streaming), TableReading(**reading))


def all_of(pairs: HuggingFacePairs) -> list[ImageTextPair]:
    items = [item for part in range(len(pairs.parts())) for item in pairs.read(part)]
    assert all(isinstance(item, ImageTextPair) for item in items)
    return items  # type: ignore[return-value]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_pairs_and_are_found_again(folder: Path, streaming: bool) -> None:
    pairs = source(folder, streaming=streaming, label_keys=["kind", "other"])
    found = all_of(pairs)
    assert [(shade_of(pair), pair.caption) for pair in found] == [(30 * n, f"{30 * n} 10") for n in range(ROWS)]
    assert [pair.labels for pair in found][:2] == [{"kind": "cat", "other": "0"}, {"kind": "dog", "other": "1"}]
    keys = [pair.key for pair in found]
    ends = ("train/00000-0000000", "train/00001-0000002") if streaming else ("train/00000000", "train/00000006")
    assert (keys[0], keys[-1]) == ends
    assert len(pairs.parts()) == (2 if streaming else 3)
    wanted = [keys[5], keys[0], "train/99999999", "train/00009-0000000", "val/00000001", "nonsense", keys[3]]
    again = list(pairs.fetch_many([(key, "") for key in wanted]))
    assert [pair.caption for pair in again if isinstance(pair, ImageTextPair)] == ["150 10", "0 10", "90 10"]
    assert [pair.key for pair in again if isinstance(pair, SkippedPair)] == wanted[2:6]
    assert shade_of(pairs.fetch(keys[6])) == 180
    with pytest.raises(DataError, match="has no readable pair 'nonsense': there is no such row"):
        pairs.fetch("nonsense")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_a_file_is_opened_without_what_lies_beside_it(folder: Path, streaming: bool, kind: str) -> None:
    file = folder / "data" / "train-00000-of-00002.parquet"
    if kind == ".arrow":
        rows().select(range(4)).save_to_disk(str(folder / "saved"))
        file = next((folder / "saved").glob("*.arrow"))
    pairs = source(file, streaming=streaming)
    read = all_of(pairs)
    assert [shade_of(pair) for pair in read] == [0, 30, 60, 90]
    assert shade_of(pairs.fetch(read[2].key)) == 60
    assert not pairs.remote
    assert list(pairs.local_files(0)) == ([file] if streaming else [])
    assert not list(HuggingFace(id=str(file)).downloads("train"))
    before = pairs.fingerprint()
    put_image(file.parent / "beside.png", 7)
    assert source(file, streaming=streaming).fingerprint() == before
    rows().select(range(1, 5)).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    if kind == ".parquet":
        assert source(file, streaming=streaming).fingerprint() != before
        with pytest.raises(DataError, match="changed"):
            pairs.watch()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_list_in_a_column_of_text_is_several_captions(tmp_path: Path, streaming: bool) -> None:
    table = rows(2).remove_columns("captions").add_column("captions", ['["a dog", "on grass"]', "[a cat] sits"])
    table.to_parquet(tmp_path / "train.parquet")
    found = all_of(source(tmp_path, streaming=streaming, captions="all"))
    assert [pair.caption for pair in found] == ["a dog", "on grass", "[a cat] sits"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_without_a_class_has_no_label(tmp_path: Path, streaming: bool) -> None:
    table = rows(3).to_dict() | {"kind": [0, -1, None]}
    datasets.Dataset.from_dict(table, features=rows(1).features).to_parquet(tmp_path / "train.parquet")
    found = all_of(source(tmp_path, streaming=streaming, label_keys=["kind"]))
    assert [pair.labels for pair in found] == [{"kind": "cat"}, {}, {}]


@pytest.mark.parametrize("streaming", [False, True])
def test_all_captions_of_an_image_are_one_group(folder: Path, streaming: bool) -> None:
    pairs = source(folder, "validation", streaming, captions="all")
    found = all_of(pairs)
    assert [pair.caption for pair in found] == ["0 10", "0 again", "30 10", "1 again"]
    assert len({pairs.group(pair.key) for pair in found}) == 2
    assert [pairs.fetch(pair.key).caption for pair in found] == [pair.caption for pair in found]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_extraction_takes_every_row_once_with_any_number_of_processes(
    folder: Path, tmp_path: Path, streaming: bool, workers: int
) -> None:
    manifest = extract_features(
        source(folder, streaming=streaming), ColorEncoder(), tmp_path / "store", batch_size=2, workers=workers  # type: ignore[arg-type]
    )  # fmt: skip
    assert manifest.count == ROWS
    store = FeatureStore(tmp_path / "store")
    red = store.read("image", 0, ROWS)[:, 0].float() * 256
    assert red.round().tolist() == [30 * number for number in range(ROWS)]


def test_what_a_fingerprint_depends_on(folder: Path) -> None:
    known = {
        source(folder).fingerprint(),
        source(folder, "validation").fingerprint(),
        source(folder, streaming=True).fingerprint(),
        source(folder, captions="all").fingerprint(),
    }
    assert len(known) == 4
    assert source(folder).fingerprint() in known
    rows(3).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
    assert source(folder).fingerprint() not in known


def test_rows_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    data = tmp_path / "broken"
    data.mkdir()
    torn, gone = {"bytes": b"torn", "path": None}, {"bytes": None, "path": "gone.png"}
    table: dict[str, list[Any]] = {"image": [torn, gone, None, torn], "text": ["torn", "gone", "none", None]}
    pd.DataFrame(table).to_parquet(data / "train.parquet")  # without the library's own types
    found = [item for part in range(2) for item in source(data).read(part)]
    assert [(item.key[-1], item.reason) for item in found if isinstance(item, SkippedPair)] == [
        ("0", "unreadable image (of no known format)"),
        ("1", "no image"),
        ("2", "no image"),
        ("3", "no caption"),
    ]
    data = tmp_path / "nested"
    data.mkdir()
    table = {"image": [[torn, torn], [torn]], "text": [[{"raw": "a", "id": 1}]] * 2}
    pd.DataFrame(table).to_parquet(data / "train.parquet")
    found = [*source(data).read(0)]
    assert {item.reason for item in found if isinstance(item, SkippedPair)} == {
        "no caption, but an object with the fields raw, id: make a column of the texts alone"
    }
    pd.DataFrame({**table, "text": ["a", "b"]}).to_parquet(data / "train.parquet")
    found = [*source(data).read(0)]
    assert {item.reason for item in found if isinstance(item, SkippedPair)} == {
        "a list in place of the image: make a row of each image in it"
    }


def test_images_that_no_fingerprint_knows_are_not_opened(tmp_path: Path) -> None:
    data = tmp_path / "named"
    (data / ".hidden").mkdir(parents=True)
    put_image(tmp_path / "elsewhere" / "1.png", 90)
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("0.png", ".hidden/0.png", "../0.png"):
        put_image(data / name, 30)
    names = ["0.png", str(data / "0.png"), "linked/1.png", str(tmp_path / "elsewhere" / "1.png"), "../0.png"]
    names += [".hidden/0.png", f"file://{data}/0.png", "https://example.org/0.png", "2.png"]
    (data / "train.csv").write_text("image,text\n" + "".join(f"{name},a\n" for name in names))
    found = [item for part in range(3) for item in source(data).read(part)]
    shades = [shade_of(item) if isinstance(item, ImageTextPair) else item.reason.partition(":")[0] for item in found]
    outside = "its image lies outside the dataset's folder, all that a fingerprint sees"
    assert shades == [30, 30, 90, *[outside] * 5, "no image"]
    before = source(data).fingerprint()
    put_image(tmp_path / "elsewhere" / "1.png", 91)
    assert source(data).fingerprint() != before, "what is opened through a link counts"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_images_that_the_library_finds_are_opened(tmp_path: Path, streaming: bool, packed: bool) -> None:
    data = tmp_path / "photos"
    put_image(data / "0.png", 30)
    (data / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}')
    if packed:
        archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", data)
        data = tmp_path / "packed"
        data.mkdir()
        Path(archive).rename(data / "train.zip")
    linked = tmp_path / "linked"
    linked.symlink_to(data)
    for folder in (data, linked):
        assert [shade_of(pair) for pair in all_of(source(folder, streaming=streaming))] == [30]


def put_rows(file: Path, first: int) -> None:
    """Write three rows, of which the captions say the number, with one time of change for all versions."""
    captions = [[f"{first + number}"] for number in range(3)]
    table = rows(3).remove_columns("captions").add_column("captions", captions)
    table.to_parquet(file)
    os.utime(file, (1e9, 1e9))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_copy_of_another_version_with_the_same_times_is_read_anew(tmp_path: Path, streaming: bool) -> None:
    """As archives without times unpack, and `cp -p` copies: the library takes one for the other."""
    file, seen = tmp_path / "train.parquet", {}
    for first in (10, 20, 10):
        put_rows(file, first)
        pairs = source(tmp_path, streaming=streaming)
        assert [pair.caption for pair in all_of(pairs)] == [f"{first + number}" for number in range(3)]
        assert seen.setdefault(first, pairs.fingerprint()) == pairs.fingerprint()
    assert len(set(seen.values())) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_that_is_changed_after_its_fingerprint_is_not_taken_for_what_it_was(
    tmp_path: Path, streaming: bool
) -> None:
    file = tmp_path / "train.parquet"
    put_rows(file, 10)
    pairs = source(tmp_path, streaming=streaming)
    pairs.fingerprint()
    put_rows(file, 20)
    with pytest.raises(DataError, match="was changed after this command had begun: run the same again"):
        pairs.watch()
    if not streaming:  # the library read the new rows for the old content, and must not keep them
        put_rows(file, 10)
        assert [pair.caption for pair in all_of(source(tmp_path))] == ["10", "11", "12"]


@pytest.mark.parametrize("streaming", [False, True])
def test_images_of_a_folder_are_watched_while_they_are_read(tmp_path: Path, streaming: bool) -> None:
    for number in range(ROWS):
        put_image(tmp_path / f"{number}.png", 30 * number)
    named = [{"file_name": f"{number}.png", "text": str(number)} for number in range(ROWS)]
    pd.DataFrame(named).to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    pairs = source(tmp_path, streaming=streaming)
    pairs.watch()
    parts = range(len(pairs.parts()))
    for part in parts:
        pairs.check_unchanged(part)
    os.utime(tmp_path / "4.png", (1e9, 1e9))
    told = []
    for part in parts:
        try:
            pairs.check_unchanged(part)
        except DataError as error:
            told.append((part, str(error)))
    assert [part for part, _ in told] == ([0] if streaming else [1])
    assert "was changed after this command had begun" in told[0][1]


@pytest.mark.parametrize("streaming", [False, True])
def test_what_travels_to_other_processes_is_not_the_open_rows(folder: Path, streaming: bool) -> None:
    pairs = source(folder, streaming=streaming)
    unopened = len(pickle.dumps(pairs))
    pairs.fingerprint()
    before = all_of(pairs)
    assert len(pickle.dumps(pairs)) < unopened + 100  # a digest
    assert [pair.caption for pair in all_of(pickle.loads(pickle.dumps(pairs)))] == [pair.caption for pair in before]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_part_that_cannot_be_read_again_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    pairs = source(folder, streaming=streaming)
    keys = [pair.key for pair in all_of(pairs)]
    whole = pairs._rows

    class Torn:
        """Rows of which the first file, or the first row, is broken."""

        num_shards = 2

        def __len__(self) -> int:
            return len(whole)

        def __getitem__(self, number: int) -> Any:
            if number == 0:
                raise OSError("torn")
            return whole[number]

        def shard(self, num_shards: int, index: int) -> Any:
            if index == 0:
                raise OSError("torn")
            return whole.shard(num_shards=num_shards, index=index)

        @property
        def features(self) -> Any:
            return whole.features

    monkeypatch.setitem(pairs.__dict__, "_rows", Torn())
    first, last = pairs.fetch_many(requests=[(keys[0], ""), (keys[-1], "")])
    assert first == SkippedPair(keys[0], "unreadable row (torn)")
    assert isinstance(last, ImageTextPair)


def test_names_of_columns_are_known_once() -> None:
    assert len(set(IMAGES)) == len(IMAGES)


def written(made: Any, folder: Path) -> Path:
    folder.mkdir()
    made.to_parquet(folder / "train.parquet")
    return folder


def test_columns_that_are_meant(tmp_path: Path) -> None:
    renamed = written(rows(2).rename_columns({"image": "photo", "captions": "what"}), tmp_path / "renamed")
    with pytest.raises(ConfigError, match="none of the columns caption, .*=; it has other, photo, what, kind"):
        source(renamed).parts()
    assert all_of(source(renamed, caption_column="what"))[1].caption == "30 10"
    with pytest.raises(ConfigError, match="dataset.image_column=image: .* has no such column: it has other, photo"):
        source(renamed, image_column="image", caption_column="what").parts()
    with pytest.raises(ConfigError, match="dataset.label_keys: .* has no column 'size'"):
        source(renamed, caption_column="what", label_keys=["size"]).parts()
    images = datasets.Dataset.from_dict({"left": rows(2)["image"][:], "right": rows(2)["image"][:], "text": ["a", "b"]})
    both = written(
        images.cast_column("left", datasets.Image()).cast_column("right", datasets.Image()), tmp_path / "both"
    )
    with pytest.raises(
        ConfigError, match="has several columns of images, left, right: choose one with dataset.image_col"
    ):
        source(both).parts()
    assert [shade_of(pair) for pair in all_of(source(both, image_column="right"))] == [0, 30]


def _hub(id: str, **settings: Any) -> Callable[[Path], object]:
    return lambda folder: HuggingFace(id=id, **settings).source("train").fingerprint()


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda folder: source(folder, "test").parts(), DataError, 'Unknown split "test".*one with dataset.rows='),
        (
            lambda folder: HuggingFace(id=str(folder), config="large").source("train").parts(),
            DataError,
            "BuilderConfig 'large' not found.*choose one with dataset.config=",
        ),
        (
            lambda folder: HuggingFace(id=__file__).source("val").parts(),
            DataError,
            "test_huggingface.py is a file, but its name ends in none of .parquet, .arrow, .*: give its folder",
        ),
        (_hub("org/none"), DataError, "dataset.id=org/none cannot be opened: .*check the network, or open it once"),
        (_hub("/no/such"), DataError, "dataset.id=/no/such is no folder or file, and no id on the hub"),
        (lambda folder: HuggingFace(id="a/b", streaming="yes"), ConfigError, "streaming=yes must be true or false"),  # type: ignore[arg-type]
        (lambda folder: HuggingFacePairs(HubDataset("a/b"), limit=0), ConfigError, "dataset.limit=0: at least 1 pair"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_the_remedy(
    folder: Path, run: Callable[[Path], object], error: type[MmmonoError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        run(folder)
    assert "\n" not in str(raised.value)


def test_what_save_to_disk_wrote_is_refused_with_what_to_do(tmp_path: Path) -> None:
    rows().save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"saved cannot be opened: .*; write it as Parquet into .*to_parquet") as raised:
        source(tmp_path / "saved").parts()
    assert "log in" not in str(raised.value)
    (tmp_path / "parquet").mkdir()
    datasets = pytest.importorskip("datasets")
    datasets.load_from_disk(str(tmp_path / "saved")).to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    assert len(all_of(source(tmp_path / "parquet"))) == ROWS


def test_the_option_names_splits_and_downloads(folder: Path) -> None:
    option = HuggingFace(id=str(folder), val_rows="validation", captions="all")
    assert option.native_splits
    assert [len(all_of(option.source(split))) for split in ("train", "val")] == [2 * ROWS, 4]  # type: ignore[arg-type]
    assert not list(option.downloads("train"))
    (download,) = HuggingFace(id="org/name").downloads("train")
    assert (download.repository, download.kind, download.kept) == ("org/name", "dataset", True)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmono.core.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"dataset=huggingface needs the package datasets: install the hf extra"):
        HuggingFacePairs(HubDataset("org/name"))


@pytest.mark.parametrize(
    ("train", "val", "shared"),
    [
        ("train[:90%]", "train[3:]", 3), ("train[3:]", "train[:90%]", 3), ("train[:-1]", "train[-3:]", 2),
        ("train[:50%]", "train[4:]", 0), ("train[:50%]", "train[3:]+validation", 1), ("train[-2:]", "train[:70%]", 0),
    ],
)  # fmt: skip
def test_slices_in_percent_and_by_rows_are_compared_when_the_number_of_rows_is_known(
    folder: Path, train: str, val: str, shared: int
) -> None:
    dataset = HuggingFace(id=str(folder), rows=train, val_rows=val)
    for split in ("train", "val"):
        if shared:
            with pytest.raises(ConfigError, match=f"val_rows=.* has {shared} rows of dataset.rows="):
                dataset.source(split).parts()  # type: ignore[arg-type]
        else:
            assert dataset.source(split).parts()  # type: ignore[arg-type]
