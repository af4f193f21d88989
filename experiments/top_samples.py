"""Find the samples that activate each feature most, and draw contact sheets (Section 2.3, Figures 1 to 3)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("top_samples")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.top_samples import TOP_SAMPLES
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(TOP_SAMPLES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
