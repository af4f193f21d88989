"""Drop classes of features, or keep them alone, and measure retrieval, zero-shot accuracy, gap, loss and effective rank."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("consequences")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.consequences import CONSEQUENCES
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(CONSEQUENCES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
