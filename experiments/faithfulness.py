"""Measure what a feature set keeps of the embeddings it was made from."""

from omegaconf import DictConfig

from mmmono.pipeline.analyses.faithfulness import measure_faithfulness
from mmmono.pipeline.entrypoint import entrypoint
from mmmono.pipeline.workspace import Workspace


@entrypoint("faithfulness")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    measure_faithfulness(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
