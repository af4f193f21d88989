"""Measure how well dictionaries and the modality dominance score recover synthetic ground truth."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("validate")
def main(cfg: Config) -> None:
    """Compare the selected feature sets with the ground truth."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.validate import VALIDATE
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(VALIDATE, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
