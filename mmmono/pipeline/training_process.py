"""Worker process that rank 0 starts for a distributed training: `python -m mmmono.pipeline.training_process`."""

from __future__ import annotations

import sys

from mmmono.core.process_group import place_of_this_process
from mmmono.core.processes import serve
from mmmono.pipeline.running import quiet

if __name__ == "__main__":
    place = place_of_this_process()
    if place is None:
        sys.exit("error: this is started by a training with several processes, not by hand")
    quiet()
    sys.exit(serve(place))
