"""Lines that are appended: complete ones are seen and stay, whoever dies and whoever else appends."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.core.lines import append_lines, read_lines


def test_a_torn_line_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_lines(path, [{"a": 1}, {"a": "é\n"}])
    with path.open("ab") as file:
        file.write(b'{"a": 3')
    assert read_lines(path) == [{"a": 1}, {"a": "é\n"}]
    append_lines(path, [{"a": 4}])
    assert read_lines(path) == [{"a": 1}, {"a": "é\n"}, {"a": 4}]
    assert read_lines(tmp_path / "absent") == []


@pytest.mark.parametrize("length", [0, 4000, 10_000])  # below a block, about one, more than two
def test_a_torn_line_of_any_length_is_replaced(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"x" * length)
    append_lines(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(b"y" * length)
    append_lines(path, [{"a": "b" * length}])
    assert read_lines(path) == [{"a": 1}, {"a": "b" * length}]


def test_lines_that_hold_no_object_are_ignored(tmp_path: Path) -> None:
    """After a power failure a page of a file may hold zeros; the two halves of another line are in one, or in none."""
    path = tmp_path / "lines.jsonl"
    append_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b'": 3}\n{"a"{"a": 4}\n\n17\n\xff\n' + b"[" * 100_000 + b"\n")
    append_lines(path, [{"a": "\r\n\x0b\x85\u2028"}])
    assert read_lines(path) == [{"a": 1}, {"a": 2}, {"a": "\r\n\x0b\x85\u2028"}]


def test_a_file_of_one_process_has_no_lock(tmp_path: Path) -> None:
    """It would stay in a finished result, and go to W&B with it; where machines take turns by files, one for each line."""
    folder = ConditionFolder(tmp_path, 1)
    folder.keep_answers(0, ["I cannot"])
    assert [file.name for file in tmp_path.iterdir()] == ["answers.jsonl"]
    assert folder.answers() == {0: ["I cannot"]}


@pytest.mark.parametrize("length", [1, 20_000])  # a line of many pages may be seen before it is whole
def test_processes_append_to_one_file(tmp_path: Path, length: int) -> None:
    """Verdicts of one judge are kept in one file, whichever runs ask it."""
    path, count, names = tmp_path / "verdicts.jsonl", 300, "abc"
    code = (
        "import sys; from pathlib import Path; from mmmono.core.lines import append_shared_lines\n"
        f"for i in range({count}):\n"
        f"    append_shared_lines(Path(sys.argv[1]), [{{'key': [sys.argv[2], i], 'x': 'y' * {length}}}])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0] * len(names)
    assert sorted(line["key"] for line in read_lines(path)) == [[name, i] for name in names for i in range(count)]
