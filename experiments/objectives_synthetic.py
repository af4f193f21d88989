"""Compare objectives for pairs on synthetic concepts: which keep a shared one in one latent?"""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("objectives_synthetic")
def main(cfg: Config) -> None:
    """Compare the selected feature sets on every setting of the synthetic data."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.objectives_synthetic import OBJECTIVES_SYNTHETIC
    from mmmono.analyses.objectives_synthetic.runs import check_dataset
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    check_dataset(cfg)
    run(OBJECTIVES_SYNTHETIC, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
