"""Train dictionaries with other seeds, compare their scores and classes, and find the features that all of them have."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("consensus")
def main(cfg: Config) -> None:
    """Analyze the trained feature sets among the selected ones."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.consensus import CONSENSUS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(CONSENSUS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
