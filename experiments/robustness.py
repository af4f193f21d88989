"""Measure how scores and classes change when a modality is scaled, means are removed, or pairs are broken at random."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("robustness")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.robustness import ROBUSTNESS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(ROBUSTNESS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
