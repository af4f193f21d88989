"""Test which features are significantly dominated by a modality, and whether other pairs or scores agree."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("certainty")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.certainty import CERTAINTY
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(CERTAINTY, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
