"""Rows shared out among threads."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmono.core.parts import in_parts


@given(rows=st.integers(0, 50), parts=st.integers(1, 9))
def test_parts_are_consecutive_and_cover_all_rows(rows: int, parts: int) -> None:
    done = in_parts(lambda part, first, end: (part, list(range(first, end))), rows, parts)
    assert [part for part, _ in done] == list(range(parts))
    assert [row for _, some in done for row in some] == list(range(rows))


def test_parts_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)  # which nobody leaves before all three have come
    assert sorted(in_parts(lambda *_: meeting.wait(), 3, 3)) == [0, 1, 2]  # each gets the order it came in


def test_an_error_of_any_part_reaches_the_caller() -> None:
    def work(part: int, first: int, end: int) -> None:
        if part == 1:
            raise ValueError("a part's own")

    with pytest.raises(ValueError, match="a part's own"):
        in_parts(work, 10, 3)
