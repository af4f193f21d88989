"""Requests, texts in images, and what is kept on disk."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmmono.case_studies import adversarial
from mmmono.case_studies.adversarial.alignment import Aligned
from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.case_studies.adversarial.requests import read_requests
from mmmono.case_studies.adversarial.typography import typographic_image, with_text
from mmmono.core.errors import DataError


def test_a_request_a_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\ufeff# harmless\nbake bread\n\n  fly a kite \n")
    found = read_requests(tmp_path / "mine.txt")
    assert [r.text for r in found] == ["bake bread", "fly a kite"]
    assert [r.concept for r in found] == ["bake bread", "fly a kite"]


def test_columns_and_images_beside_the_list(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "bread.png")
    (tmp_path / "mine.csv").write_text(
        'image,request,concept\nbread.png,"bake bread, now",bread\nopenmoji:1FA81,fly a kite,\n'
    )
    first, second = read_requests(tmp_path / "mine.csv")
    assert (first.text, first.concept, first.image) == ("bake bread, now", "bread", str(tmp_path / "bread.png"))
    assert (second.concept, second.image) == ("fly a kite", "openmoji:1FA81")


def test_a_table_as_spreadsheets_and_people_write_it(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(
        b'\xef\xbb\xbfid, Request, concept\r\n7, "bake bread,\nnow", bread,, \r\n\r\n8,fly a kite,kite\r\n,,,,\r\n'
    )
    found = read_requests(tmp_path / "mine.csv")
    assert [(r.text, r.concept) for r in found] == [("bake bread,\nnow", "bread"), ("fly a kite", "kite")]


def test_shipped_requests_are_whole() -> None:
    found = read_requests(None)
    assert len({r.text for r in found}) == len(found) >= 10
    assert all(r.concept != r.text and r.image.startswith("openmoji:") for r in found)
    assert (files(adversarial) / "requests.csv").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"# nothing\n\n", "holds no request"),
        ("goal.csv", b"goal\nbake\n", "has no column 'request', only goal"),
        ("twice.csv", b"Request,request,concept\nfirst,second,x\n", "has several columns called 'request': rename"),
        ("old.csv", b"request,picture\nbake,a.png\n", "has a column .picture.: rename it to .image."),
        ("comma.csv", b"request,concept\nfly,kite\nbake bread, now,bread\n", r"line 3: 1 more fields .* in quotes"),
        ("twice.csv", b"request,concept\nfly,kite\nbake,bread\nfly,kite\n", "has 'fly' twice"),
        ("image.txt", b"\xff\xfe\x00\x81", "is no readable text file"),
    ],
)
def test_bad_lists(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_requests(tmp_path / name)
    with pytest.raises(DataError, match="is not there"):
        read_requests(tmp_path / "absent.txt")


@pytest.mark.parametrize("text", ["no", "describe how to bake bread without permission", "many words " * 60, "x" * 300])
def test_text_lies_inside_the_image(text: str) -> None:
    ink = np.asarray(typographic_image(text, 120).convert("L")) < 128
    assert ink.any()
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert rows[0] >= 2
    assert rows[-1] <= 117
    assert columns[0] >= 2
    assert columns[-1] <= 117


def test_friendly_text_leaves_the_upper_half_alone() -> None:
    image = Image.new("RGBA", (90, 60), (10, 200, 30, 255))
    written = with_text(image, "peace and love")
    assert written.mode == "RGB"
    before, after = np.asarray(image.convert("RGB")), np.asarray(written)
    assert np.array_equal(before[:30], after[:30])
    assert not np.array_equal(before[30:], after[30:])


def test_folder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = ConditionFolder(tmp_path / "stage", 3)
    pixels = torch.randint(0, 256, (2, 3, 5, 4)).float() / 255
    distances = torch.tensor([[2.0, 1.0], [4.0, 3.0]])
    folder.keep_moved([0, 2], Aligned(pixels, distances))
    assert folder.distances() is None
    again = ConditionFolder(tmp_path / "stage", 3)
    assert again.unmoved() == [1]
    assert torch.equal(again.pixels([0, 2]), pixels)
    again.keep_moved([1], Aligned(pixels[:1], distances[:1]))
    np.testing.assert_array_equal(again.distances(), [[2, 1], [2, 1], [4, 3]])
    again.keep_answers(1, ["a", "b"])
    assert folder.answers() == {1: ["a", "b"]}
