"""Compare all dictionaries that were trained on the same features: reconstruction, sparsity, monosemanticity."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("sweep")
def main(cfg: DictConfig) -> None:
    """Read what trainings have left, and draw them together."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.sweep import summarize_sweep
    from mmmono.pipeline.workspace import Workspace

    summarize_sweep(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
