"""Folders and tables of images with captions."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmmono.core.errors import ConfigError, DataError, MmmonoError
from mmmono.core.fingerprints import folder_fingerprint
from mmmono.data.images import decode_image
from mmmono.data.listed_pairs import ListedPairs
from mmmono.data.listings import list_folder, list_table
from mmmono.data.pairs import ImageTextPair, SkippedPair
from mmmono.data.tables import EMBEDDED, TableReading, read_table
from mmmono.pipeline.listed_datasets import Folder, Table


def put_image(file: Path, shade: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 10, 200)).save(file)
    return file


def shade_of(pair: ImageTextPair) -> int:
    return int(np.asarray(pair.image)[0, 0, 0])


def all_of(source: ListedPairs) -> tuple[list[ImageTextPair], list[SkippedPair]]:
    items = [item for part in range(len(source.parts())) for item in source.read(part)]
    for pair in items:  # what was read is found again, and by its key alone
        if isinstance(pair, ImageTextPair):
            for locator in (pair.locator, ""):
                again = source.fetch(pair.key, locator)
                assert (again.caption, shade_of(again)) == (pair.caption, shade_of(pair))
    return [i for i in items if isinstance(i, ImageTextPair)], [i for i in items if isinstance(i, SkippedPair)]


def folder(root: Path, **reading: Any) -> ListedPairs:
    made = TableReading(**reading)
    return ListedPairs(list_folder(str(root), made), "folder", made)


def table(file: Path, root: Path | None = None, **reading: Any) -> ListedPairs:
    made = TableReading(**reading)
    return ListedPairs(list_table(str(file), None if root is None else str(root), made), "table", made)


def captions_of(source: ListedPairs) -> dict[str, str]:
    return {pair.key: pair.caption for pair in all_of(source)[0]}


def test_no_image_is_passed_over_for_its_extension(tmp_path: Path) -> None:
    """What phones and browsers save: an image that cannot be decoded is skipped with a reason."""
    put_image(tmp_path / "a.png", 10)
    put_image(tmp_path / "b.avif", 50)
    put_image(tmp_path / "c.png", 90).rename(tmp_path / "c.jfif")
    (tmp_path / "d.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(f"the image {name}")
    pairs, skipped = all_of(folder(tmp_path))
    assert [(pair.key, pair.caption) for pair in pairs] == [(name, f"the image {name}") for name in "abc"]
    assert skipped == [SkippedPair("d", "unreadable image (of no known format)")]


def test_a_caption_may_be_longer_than_csv_allows(tmp_path: Path) -> None:
    put_image(tmp_path / "a.png", 10)
    caption = " ".join(["word"] * 40_000)
    (tmp_path / "pairs.csv").write_text(f"path,caption\na.png,{caption}\n")
    assert captions_of(table(tmp_path / "pairs.csv")) == {"a": caption}
    assert csv.field_size_limit() == 131_072, "what other code reads is limited as before"


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_a_table_of_another_encoding_would_lose_its_accents(tmp_path: Path, name: str) -> None:
    """As a spreadsheet saves it. A broken byte or two among captions of UTF-8 are U+FFFD."""
    put_image(tmp_path / "a.png", 10)
    put_image(tmp_path / "b.png", 50)
    captions = ["a café", "un élan"]
    text = "path,caption\na.png,{}\nb.png,{}\n"
    if name.endswith("jsonl"):
        text = '{{"path": "a.png", "caption": "{}"}}\n{{"path": "b.png", "caption": "{}"}}\n'
    (tmp_path / name).write_text(text.format(*captions), encoding="cp1252")
    with pytest.raises(
        DataError, match=r"caf\\xe9.*is not UTF-8.*'iconv -f CP1252 -t UTF-8 \S+/pairs\.\w+ > \S+/utf8-pairs\.\w+'$"
    ) as raised:
        table(tmp_path / name).parts()
    subprocess.run(["sh", "-c", str(raised.value).split("'")[1]], check=True)  # from any folder
    assert list(captions_of(table(tmp_path / f"utf8-{name}")).values()) == captions
    assert f"line {1 + name.endswith('csv')} " in str(raised.value)
    (tmp_path / name).write_bytes(text.format(*captions).encode().replace("é".encode(), b"\xe9", 1))
    assert list(captions_of(table(tmp_path / name)).values()) == ["a caf\ufffd", "un élan"]
    (tmp_path / name).write_text(text.format(*captions), encoding="utf-16")
    assert list(captions_of(table(tmp_path / name)).values()) == captions


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ('["two dogs", "dogs, running"]', ["two dogs", "dogs, running"]),  # as the hub's Flickr30k has them
        ("['two dogs', \"a dog's bone\"]", ["two dogs", "a dog's bone"]),  # as pandas writes a column of lists
        (
            "['two dogs' \"a dog's bone\"\n 'a cat']",
            ["two dogs", "a dog's bone", "a cat"],
        ),  # a column of NumPy's arrays
        ("['two dogs', \"the 'big' 'dog'\"]", ["two dogs", "the 'big' 'dog'"]),
        ('["two dogs", null, ""]', ["two dogs"]),
        ("[a dog] on grass [1]", ["[a dog] on grass [1]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[", ["["]),
    ],
)
def test_a_list_in_a_table_of_text_is_several_captions(tmp_path: Path, value: str, captions: list[str]) -> None:
    put_image(tmp_path / "a.png", 10)
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "caption"], ["a.png", value]])
    assert list(captions_of(table(tmp_path / "pairs.csv", captions="all")).values()) == captions


def test_a_table_of_windows_separates_folders_by_backslashes(tmp_path: Path) -> None:
    put_image(tmp_path / "cats" / "a.png", 10)
    put_image(tmp_path / "b\\c.png", 50)  # elsewhere, a backslash may be part of a name
    (tmp_path / "pairs.csv").write_text("path,caption\r\ncats\\a.png,one\r\nb\\c.png,two\r\ncats\\d.png,three\r\n")
    source = table(tmp_path / "pairs.csv")
    assert captions_of(source) == {"cats/a": "one", "b\\c": "two"}
    assert [skip.reason for skip in all_of(source)[1]] == ["no image"]


def test_images_beside_text_files(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a.png", "cats/a.png", "cats/b.PNG", "cats/b.jpg", ".hidden/c.png")):
        put_image(tmp_path / name, 10 * number)
    (tmp_path / "a.txt").write_text("a dog\n  on grass\n")
    (tmp_path / "cats" / "a.txt").write_bytes("\ufeffune chatte à moi".encode())
    (tmp_path / "cats" / "b.txt").write_text("two cats")
    source = folder(tmp_path, label_keys=["folder"])
    pairs, skipped = all_of(source)
    exact = [pair for pair in pairs if pair.key != "cats/b.jpg"]
    assert [(pair.key, pair.caption, shade_of(pair), pair.labels["folder"]) for pair in exact] == [
        ("a", "a dog on grass", 10, tmp_path.name),
        ("cats/a", "une chatte à moi", 20, "cats"),
        ("cats/b.PNG", "two cats", 30, "cats"),
    ]  # fmt: skip
    assert [pair.key for pair in pairs][2:] == ["cats/b.PNG", "cats/b.jpg"], "images of one name keep their extensions"
    assert skipped == [SkippedPair("b", "no caption")]
    assert len(source) == 5
    before = source.fingerprint()
    assert folder(tmp_path, label_keys=["folder"]).fingerprint() == before
    (tmp_path / "a.txt").write_text("another dog")
    after = folder(tmp_path, label_keys=["folder"]).fingerprint()
    put_image(tmp_path / "a.png", 11)
    assert len({before, after, folder(tmp_path, label_keys=["folder"]).fingerprint()}) == 3


def test_a_link_to_a_folder_around_it_is_not_entered_again(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for file in (root / "a" / "1.png", other / "2.png"):
        put_image(file, 1)
        file.with_suffix(".txt").write_text("one")
    (root / "a" / "up").symlink_to(root)
    (root / "b").symlink_to(other)
    (other / "back").symlink_to(root)
    assert sorted(captions_of(folder(root))) == ["a/1", "b/2"]
    before = folder_fingerprint(root)
    (other / "2.txt").write_text("another")
    assert folder_fingerprint(root) != before, "linked folders count"


def test_texts_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1", "2"):
        put_image(tmp_path / f"{name}.png", 1)
    (tmp_path / "1.txt").write_text("one")
    (tmp_path / "2.txt").symlink_to(tmp_path / "nowhere")
    source = folder(tmp_path)
    assert all_of(source)[1] == [SkippedPair("2", "no caption")]
    assert source.fingerprint()

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match=r"1.txt cannot be read \(Permission denied\): make it readable, or remove it"):
        folder(tmp_path)


@pytest.fixture
def imagefolder(tmp_path: Path) -> Path:
    """A folder as the library `datasets` knows it, with one image in a folder."""
    for number, name in enumerate(("0.png", "1.png", "in/2.png")):
        put_image(tmp_path / name, 50 * number)
    return tmp_path


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_imagefolder_is_what_datasets_reads(
    imagefolder: Path, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [
        {"file_name": "in/2.png", "text": 'a "blue" house, small', "kind": 7},
        {"file_name": "0.png", "text": "a hut", "kind": 8},
        {"file_name": "1.png", "text": "zwei Häuser", "kind": 7},
    ]
    if kind == "jsonl":
        (imagefolder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        with (imagefolder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    pairs, skipped = all_of(folder(imagefolder, label_keys=["kind"]))
    assert not skipped
    assert [(pair.key, pair.labels["kind"]) for pair in pairs] == [("in/2", "7"), ("0", "8"), ("1", "7")]
    datasets = pytest.importorskip("datasets", reason="the hf extra brings the library datasets")
    cache = str(tmp_path_factory.mktemp("cache"))
    known = datasets.load_dataset("imagefolder", data_dir=str(imagefolder), split="train", cache_dir=cache)
    assert {(row["text"], row["image"].getpixel((0, 0))[0]) for row in known} == {
        (pair.caption, shade_of(pair)) for pair in pairs
    }


def write_as(kind: str, file: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    path = file.with_suffix(f".{kind}")
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep={"csv": ",", "tsv": "\t", "txt": "|"}[kind])
    return path


ROWS = [
    {"image": "1.png", "caption": "one, and only", "color": "red"},
    {"image": "2.png", "caption": "two", "color": "blue"},
    {"image": "1.png", "caption": "the first again", "color": "green"},
    {"image": "gone.png", "caption": "nothing to see", "color": "red"},
    {"image": "", "caption": "no path", "color": "red"},
    {"image": "3.png", "caption": " ", "color": "red"},
    {"image": "torn.png", "caption": "cut off", "color": "red"},
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt", "jsonl", "parquet"])
def test_tables_of_any_kind_say_the_same(tmp_path: Path, kind: str) -> None:
    for number in (1, 2, 3):
        put_image(tmp_path / "images" / f"{number}.png", 40 * number)
    (tmp_path / "images" / "torn.png").write_bytes((tmp_path / "images" / "1.png").read_bytes()[:40])
    file = write_as(kind, tmp_path / "pairs", ROWS)
    pairs, skipped = all_of(table(file, tmp_path / "images", label_keys=["color"]))
    assert [(pair.key, pair.caption, shade_of(pair), pair.labels) for pair in pairs] == [
        ("1", "one, and only", 40, {"color": "red"}),
        ("2", "two", 80, {"color": "blue"}),
    ]
    assert [(skip.key, skip.reason.partition(" (")[0]) for skip in skipped] == [
        (f"pairs.{kind}/row-4", "no path in the column image"),
        ("gone", "no image"),
        ("3", "no caption"),
        ("torn", "unreadable image"),
    ]


def test_objects_in_place_of_captions_are_told_by_their_fields(tmp_path: Path) -> None:
    """As in Karpathy's splits."""
    put_image(tmp_path / "1.png", 1)
    (tmp_path / "t.jsonl").write_text('{"path": "1.png", "sentences": [{"raw": "a cat", "sentid": 3}]}\n')
    (skipped,) = all_of(table(tmp_path / "t.jsonl"))[1]
    assert skipped.reason == "no caption, but an object with the fields raw, sentid: make a column of the texts alone"


def test_captions_of_one_image_are_one_group(tmp_path: Path) -> None:
    for number in (1, 2):
        put_image(tmp_path / f"{number}.png", number)
    lists = [{"file": "1.png", "words": ["a", "", "b", None]}, {"file": str(tmp_path / "2.png"), "words": ["c"]}]
    file = write_as("parquet", tmp_path / "pairs", lists)
    source = table(file, image_column="file", caption_column="words", captions="all")
    assert captions_of(source) == {"1#0": "a", "1#1": "b", "2#0": "c"}
    assert len(source) == 3
    assert [source.group(key) for key in ("1#0", "1#1", "2#0")] == ["1", "1", "2"]
    assert len({table(file, image_column="file", caption_column="words", captions=how).fingerprint() for how in (
        "first", "all", "random")}) == 3  # fmt: skip
    moved = tmp_path / "moved"
    moved.mkdir()
    put_image(moved / "1.png", 1)
    one = write_as("csv", moved / "pairs", [{"path": "1.png", "text": "x"}])
    put_image(tmp_path / "again" / "1.png", 1)
    two = write_as("csv", tmp_path / "again" / "pairs", [{"path": "1.png", "text": "x"}])
    assert table(one).fingerprint() == table(two).fingerprint(), "where files lie does not matter"


@pytest.mark.parametrize("captions", ["first", "all"])
def test_names_that_look_like_other_names(tmp_path: Path, captions: str) -> None:
    names = ["x.png", "x#0.png", "a.jpg", "a.png", "a.jpg.png"]
    for number, name in enumerate(names):
        put_image(tmp_path / name, number)
    rows = [{"path": name, "text": f"{text} {name}"} for name in names for text in ("one", "two")]
    source = table(write_as("csv", tmp_path / "pairs", rows), captions=captions)
    pairs, _ = all_of(source)
    keys = [pair.key for pair in pairs]
    assert len(set(keys)) == len(keys) == (10 if captions == "all" else 5)
    groups: dict[str, set[str]] = {}
    for pair in pairs:
        groups.setdefault(source.group(pair.key), set()).add(pair.caption.split()[1])
    assert sorted(map(sorted, groups.values())) == sorted([name] for name in names), "an image is a group"


def _table(name: str, content: str) -> Callable[[Path], object]:
    def run(root: Path) -> object:
        put_image(root / "1.png", 1)
        (root / name).write_text(content)
        return table(root / name)

    return run


def _embedded(several: bool) -> Callable[[Path], object]:
    def run(root: Path) -> object:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": "a.png"}
        pd.DataFrame([{"image": [image] if several else image, "text": "a"}]).to_parquet(root / "t.parquet")
        return table(root / "t.parquet")

    return run


def _folder_with(*names: str, **reading: Any) -> Callable[[Path], object]:
    def run(root: Path) -> object:
        for name in names:
            put_image(root / name, 1) if name.endswith(".png") else (root / name).write_text("text")
        return folder(root, **reading)

    return run


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda root: table(root / "no.csv"), DataError, r"no.csv is no file: give a table of paths and captions"),
        (lambda root: folder(root / "no"), DataError, "is no folder: give one with images"),
        (_table("t.xlsx", "x"), DataError, "is no table that is read here: .csv, .tsv, .txt, .jsonl"),
        (_table("t.csv", ""), ConfigError, "none of the columns file_name, .*dataset.image_column=; it has no columns"),
        (_table("t.csv", "a,text\n1.png,x"), ConfigError, "that is meant with dataset.image_column=; it has a, text"),
        (_table("t.csv", "path,b\n1.png,x"), ConfigError, "with dataset.caption_column=; it has path, b"),
        (_table("t.csv", "path,text\n1.png,one, two"), DataError, "line 2: 3 values where the first line names 2"),
        (_table("t.csv", 'path,text\n1.png,"open\n2.png,x\n'), DataError, "line 3: unexpected end of data: a text with a"),
        (_table("t.csv", 'path,text\n1.png,"Stop" sign\n'), DataError, "line 2: ',' expected .* is quoted, and the mark"),
        (_table("t.tsv", 'path\ttext\n1.png\t"x\n2.png\n'), DataError, "line 3: 1 values where the first line names 2"),
        (_table("t.csv", "path,text,text\n1.png,x,\n"), DataError, "has several columns called 'text': rename those"),
        (_table("t.csv", "path,text\n"), DataError, "lists no image"),
        (_table("t.jsonl", '{"path": "1.png", "text": "x"}\n{'), DataError, "t.jsonl, line 2: no JSON"),
        (_table("t.jsonl", "[1]"), DataError, "t.jsonl, line 1: no JSON object, such as"),
        (_table("t.parquet", "PAR1"), DataError, "t.parquet cannot be read"),
        (_table("t.csv", "url,path,text\nu,http://a/1.png,x"), DataError, "is an address on the web: download the"),
        *(
            (
                _embedded(several),
                DataError,
                "column image holds the images themselves, .* dataset=huggingface dataset.id=.*parquet, or name a column",
            )
            for several in (False, True)
        ),
        (_folder_with("a.txt"), DataError, "has no images .* and no metadata.jsonl or metadata.csv"),
        (_folder_with("a.png"), DataError, "has 1 images and not one caption: put a metadata.jsonl"),
        (_folder_with("a.png", "a.txt", label_keys=["kind"]), ConfigError, "'kind' needs a metadata.jsonl"),
        (lambda root: TableReading(label_keys=["key"]), ConfigError, "no label can be called 'key'"),
        (lambda root: TableReading(captions="some"), ConfigError, "is none of first, random, all"),  # type: ignore[arg-type]
        (lambda root: Table(path="t.csv", limit=0), ConfigError, "dataset.limit=0: at least 1 pair"),
        (lambda root: Folder(root=str(root), val_root=f"{root}/val"), ConfigError, "/val has images of dataset.root="),
        (lambda root: Folder(root=f"{root}/x/..", val_root=str(root)), ConfigError, "leave dataset.val_root out"),
        (lambda root: Table(path=f"{root}/t.csv", val_path=f"{root}/t.csv"), ConfigError, "val_path=.* is dataset.path"),
        (lambda root: Folder(root="a", split="all", val_root="b"), ConfigError, "dataset.split=all is none of"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_the_remedy(
    tmp_path: Path, run: Callable[[Path], object], error: type[MmmonoError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        run(tmp_path)
    assert "\n" not in str(raised.value)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    put_image(tmp_path / "1.png", 1)
    file = write_as("csv", tmp_path / "t", [{"path": "1.png", "text": "x"}])
    for name in ("image_column", "caption_column"):
        with pytest.raises(ConfigError, match=f"dataset.{name}=other: .* has no such column: it has path, text"):
            table(file, **{name: "other"})
    with pytest.raises(ConfigError, match="dataset.label_keys: .* has no column 'other': it has path, text"):
        table(file, label_keys=["other"])
    with pytest.raises(ConfigError, match="is no folder: give the one that the paths in t.csv belong to"):
        table(file, tmp_path / "no")
    with pytest.raises(DataError, match="has no readable pair '7'"):
        table(file).fetch("7")


def test_line_breaks_in_quotes_and_other_separators_stay_in_a_caption(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes('path,text\r\n1.png,"two\nlines\u2028here"\r\n'.encode())
    assert read_table(file) == {"path": ["1.png"], "text": ["two\nlines\u2028here"]}


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("end", ["\n", " \n", " \r\n"])
def test_white_space_after_a_quoted_value_is_none_of_it(tmp_path: Path, separator: str, end: str) -> None:
    rows = [
        ('"path" ', ' "text"'),
        ('"1.png" ', ' "a ""big"" dog, a cat"'),
        ("2.png", '"two\nlines"'),
        ("3.png ", "plain"),
    ]
    file = tmp_path / "table.csv"
    file.write_text(end.join(separator.join(row) for row in rows) + end, newline="")
    assert read_table(file) == {
        "path": ["1.png", "2.png", "3.png"], "text": ['a "big" dog, a cat', "two\nlines", "plain"]
    }  # fmt: skip


def test_quotation_marks_in_flickr30k_are_those_of_its_captions(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text('image_name| comment_number| comment\n1.jpg| 0| "Stop" says a sign .\n1.jpg| 1| A red sign .\n')
    assert read_table(file)["comment"] == ['"Stop" says a sign .', "A red sign ."]


def test_quotation_marks_in_a_table_of_tabs_take_no_lines(tmp_path: Path) -> None:
    captions = ['"Stop" sign', '"the end', "fine", 'a "quoted" word', '"']
    file = tmp_path / "t.tsv"
    file.write_text("".join(f"{place}\t{text}\n" for place, text in [("path", "text"), *enumerate(captions)]))
    assert read_table(file) == {"path": list("01234"), "text": captions}
    pd.DataFrame({"path": list("01234"), "text": [*captions[:4], "a\ttab"]}).to_csv(file, sep="\t", index=False)
    assert read_table(file)["text"] == [*captions[:4], "a\ttab"], "as pandas quotes them"


def test_images_in_a_parquet_file_are_not_read_to_see_that_they_are_no_texts(tmp_path: Path) -> None:
    """However many there are in a row group, which pandas makes of a million rows."""
    file, rows = tmp_path / "t.parquet", 1500
    images = pa.array([np.random.default_rng(0).bytes(20_000) for _ in range(rows)])
    table = pa.table({"file_name": [f"{row}.png" for row in range(rows)], "text": ["a"] * rows, "image": images})
    pq.write_table(table, file, row_group_size=rows, use_dictionary=False, write_batch_size=16, data_page_size=1 << 16)
    measured = (
        "import pyarrow as pa, pathlib, sys; from mmmono.data.tables import EMBEDDED, read_table; "
        "assert set(read_table(pathlib.Path(sys.argv[1]))['image']) == {EMBEDDED}; "
        "print(pa.default_memory_pool().max_memory())"
    )
    most = subprocess.run([sys.executable, "-c", measured, str(file)], check=True, capture_output=True).stdout
    assert int(most) < images.nbytes / 10


def test_texts_that_a_parquet_file_holds_as_bytes(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(names):
        put_image(tmp_path / name, number)
    columns = {"path": names, "text": [None, *(f"caption {name} é" for name in names[1:])], "kind": ["a", "b"] * 20}
    binary = {name: pa.array([v and v.encode() for v in values], pa.binary()) for name, values in columns.items()}
    images = pa.array([(tmp_path / name).read_bytes() for name in names], pa.binary())
    pq.write_table(pa.table({**binary, "jpg": images}), tmp_path / "t.parquet")
    pairs, skipped = all_of(table(tmp_path / "t.parquet", label_keys=["kind"]))
    assert [(pair.caption, pair.labels["kind"]) for pair in pairs] == list(
        zip(columns["text"][1:], columns["kind"][1:], strict=True)
    )
    assert skipped == [SkippedPair("0", "no caption")]
    assert set(read_table(tmp_path / "t.parquet")["jpg"]) == {EMBEDDED}, "images are not read"


def test_folders_of_the_splits(tmp_path: Path) -> None:
    for split, shade in (("train", 1), ("val", 2)):
        put_image(tmp_path / split / "1.png", shade)
        (tmp_path / split / "1.txt").write_text(split)
    dataset = Folder(root=str(tmp_path / "train"), val_root=str(tmp_path / "val"))
    assert dataset.native_splits
    assert [captions_of(dataset.source(split)) for split in ("train", "select", "val")] == [  # type: ignore[arg-type]
        {"1": "train"}, {"1": "train"}, {"1": "val"},
    ]  # fmt: skip
    assert dataset.source("train") is dataset.source("select"), "a folder is listed once"
    file = write_as("csv", tmp_path / "t", [{"path": "train/1.png", "text": "x"}])
    in_table = Table(
        path=str(file), val_path=str(write_as("csv", tmp_path / "v", [{"path": "val/1.png", "text": "y"}]))
    )
    assert in_table.source("train") is in_table.source("select"), "a table is read once"
    assert captions_of(in_table.source("val")) == {"val/1": "y"}


def test_each_line_of_a_text_file_may_be_a_caption(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a dog\n\na dog runs\n")
    reading = TableReading(captions="all")
    whole, lines = (
        ListedPairs(list_folder(str(tmp_path), reading, by_line), "folder", reading) for by_line in (False, True)
    )
    assert [pair.caption for pair in whole.read(0)] == ["a dog a dog runs"]
    assert [(pair.key, pair.caption) for pair in lines.read(0)] == [("a#0", "a dog"), ("a#1", "a dog runs")]
    assert len(lines) == 2
    assert whole.fingerprint() != lines.fingerprint()
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    with pytest.raises(
        ConfigError, match=r"dataset.caption_lines=true is for captions in .txt files, but .*metadata.csv"
    ):
        list_folder(str(tmp_path), reading, caption_lines=True)


@pytest.mark.parametrize("head", [b"<svg ", b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a drawing -->\n<svg "])
def test_drawings_in_a_parquet_file_are_no_paths(tmp_path: Path, head: bytes) -> None:
    file, drawing = tmp_path / "t.parquet", head + b"xmlns='http://www.w3.org/2000/svg'/>"
    pq.write_table(pa.table({"image": [drawing] * 2, "text": ["a", "b"]}), file)
    with pytest.raises(DataError, match="column image holds the images themselves, not their paths"):
        list_table(str(file), None, TableReading())
    with pytest.raises(DataError, match="an SVG drawing, which has no pixels: render it first"):
        decode_image(drawing)
