"""Score how monosemantic features are (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("interpretability")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.interpretability import INTERPRETABILITY
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(INTERPRETABILITY, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
