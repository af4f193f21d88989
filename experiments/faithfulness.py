"""Measure how much of the embeddings' information and function a feature set preserves."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("faithfulness")
def main(cfg: DictConfig) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.faithfulness import measure_faithfulness
    from mmmono.pipeline.workspace import Workspace

    measure_faithfulness(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
