"""Name each feature, and test the name on held-out pairs."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("names")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.names import NAMES
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(NAMES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
