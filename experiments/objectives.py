"""Compare objectives for pairs on synthetic concepts: which keep a shared one in one latent?"""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("objectives")
def main(cfg: DictConfig) -> None:
    """Compare the selected feature sets on every setting of the synthetic data."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.objectives import OBJECTIVES
    from mmmono.analyses.objectives.runs import check_dataset
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    check_dataset(cfg)
    run(OBJECTIVES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
