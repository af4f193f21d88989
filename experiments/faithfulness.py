"""Measure what a feature set keeps of the embeddings it was made from."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("faithfulness")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.faithfulness import measure_faithfulness
    from mmmono.pipeline.workspace import Workspace

    measure_faithfulness(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
