"""Say how much of planted concepts the dictionaries and the modality dominance score find."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("validate")
def main(cfg: DictConfig) -> None:
    """Score the chosen feature sets side by side."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.validate import validate
    from mmmono.pipeline.workspace import Workspace

    validate(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
