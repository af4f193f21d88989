"""Test whether image- or text-dominant features carry a concept (Section 4.1, Table 2, Figure 7, Table 6)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("gender")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.gender import GENDER
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(GENDER, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
