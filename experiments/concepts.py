"""Find the feature that detects each label of the dataset, and test it on held-out pairs."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("concepts")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.concepts import CONCEPTS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(CONCEPTS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
