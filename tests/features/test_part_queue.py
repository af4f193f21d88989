from pathlib import Path

import pytest

from mmmono.core.claims import Claims
from mmmono.core.errors import DataError
from mmmono.features.extraction import begin_store
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.part_queue import TRIES, PartQueue
from mmmono.features.writer import CLAIMS, FeatureStoreWriter
from tests.fakes import ColorEncoder, ColorPairs, _tokenize


class Store:
    """An unfinished store of five parts, its writer, and the claims of a queue's process."""

    def __init__(self, folder: Path) -> None:
        self.source = ColorPairs((2,) * 5)
        begin_store(self.source, folder, ExtractionSettings())
        self.folder = folder
        self.writer = FeatureStoreWriter(folder, 5, begin=False)
        self.claims = Claims(folder / CLAIMS)

    def finish(self, *parts: int) -> None:
        """Write parts, as a worker does."""
        rows = ColorEncoder().encode_text(_tokenize(["0 0", "1 1"]))
        for part in parts:
            self.writer.write(part, rows, rows, [{"key": f"{part}/{i}", "caption": ""} for i in range(2)])

    def queue(self) -> PartQueue:
        return PartQueue(self.source, self.writer, self.claims)


def test_parts_are_given_once_in_order_and_finished_ones_never(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.finish(1)
    with store.claims:
        queue = store.queue()
        assert (queue.left, queue.pairs) == ({0, 2, 3, 4}, 2)
        assert queue.next(2) == [0, 2]
        store.finish(3)  # by a process that is not of this cluster
        assert queue.next(9) == [4]
        assert queue.next(9) == []
        store.finish(0, 2)
        queue.ended([0, 2], {})
        assert (queue.left, queue.pairs) == ({4}, 8)
        queue.ended([4], {4: "is cut off"})
        assert queue.left == set()
        queue.check_lost("")


def test_parts_of_a_dead_worker_are_given_again_one_by_one_and_left_in_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claims:
        queue = store.queue()
        assert queue.next(3) == [0, 1, 2]
        store.finish(0)
        queue.ended([0, 1, 2], None)
        assert queue.next(3) == [3, 4]  # the parts that may have ended the worker come after the others, alone
        store.finish(3, 4)
        queue.ended([3, 4], {})
        assert queue.next(3) == [1]
        store.finish(1)
        queue.ended([1], {})
        for _ in range(TRIES - 1):
            assert queue.next(3) == [2]
            queue.ended([2], None)
        assert queue.left == set()
        with pytest.raises(
            DataError, match=rf"^1 of 5 shards ended .* {TRIES} times: part-2 \(no memory\)\. The others"
        ):
            queue.check_lost("no memory")


def test_parts_that_another_process_works_on_wait(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claims, Claims(tmp_path / CLAIMS) as other:
        assert other.take(0)
        assert other.take(2)
        queue = store.queue()
        assert queue.next(9) == [1, 3, 4]
        assert queue.next(9) == []
        store.finish(2)
        other.__exit__()
        assert queue.next(9) == [0]
        store.finish(0, 1, 3, 4)
        queue.ended([1, 3, 4], {})
        queue.ended([0], {})
        assert queue.left == set()
        assert queue.pairs == 10
