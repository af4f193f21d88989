"""Compare objectives for pairs on a model's embeddings of a dataset, over seeds."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("objectives")
def main(cfg: Config) -> None:
    """Compare the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.objectives import OBJECTIVES
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(OBJECTIVES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
