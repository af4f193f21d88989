"""Collect all results of the chosen features on one page, beside the paper's."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("report")
def main(cfg: DictConfig) -> None:
    """Make a page of what is there, and say what is missing."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.report import report
    from mmmono.pipeline.workspace import Workspace

    report(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
