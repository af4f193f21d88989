"""Rehearses the whole paper, `make paper MODEL=clip_rn50 DATASET=cc3m COCO=…`, against a hub on loopback.

    python -m tests.rehearsal [--faults] [--quick] [--only WORD …] [--folder FOLDER] [--keep]

Models are small or have random weights, but have the classes, ids, file names and formats of the real ones; what is
rehearsed is the way from nothing to the report. With `--faults` everything is run a second time against servers that
misbehave, and must give the same results to the last bit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.rehearsal.rehearsal import Rehearsal


def main() -> int:
    """Exit status: 0 where every step ends as it should and all results are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", action="store_true", help="run again with faults, and compare")
    parser.add_argument("--quick", action="store_true", help="fewer pairs and steps, all in one process")
    parser.add_argument("--folder", type=Path, help="where to work; a repository built there before is used again")
    parser.add_argument("--keep", action="store_true", help="leave the folder, such as to look at the report")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help="steps whose names have one of the words")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mmmono-rehearsal-"))
    rehearsal = Rehearsal(folder.absolute(), quick=options.quick, only=options.only)
    try:
        return 0 if rehearsal.run(faults=options.faults) else 1
    finally:
        if not (options.keep or options.folder):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
