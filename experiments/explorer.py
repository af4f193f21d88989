"""Make the feature explorer: from the distribution of scores to a feature to what activates it, in a browser."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("explorer")
def main(cfg: DictConfig) -> None:
    """Make a page of the chosen feature sets."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.explorer import explore
    from mmmono.pipeline.workspace import Workspace

    explore(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
