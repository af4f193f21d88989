"""Score how monosemantic features are (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("interpretability")
def main(cfg: DictConfig) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.interpretability import interpret
    from mmmono.pipeline.workspace import Workspace

    interpret(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
