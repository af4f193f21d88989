"""Makes `python -m mmmono` and `torchrun -m mmmono` the same as the command `mmmono`."""

from mmmono.pipeline.cli import main

if __name__ == "__main__":
    main()
