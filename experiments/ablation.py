"""Remove classes of features and classify images and texts (Section 2.2, Table 1)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("ablation")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.ablation import ABLATION
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(ABLATION, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
