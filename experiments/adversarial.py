"""Measure which features carry an attack on an image encoder, and which defend against it (Section 4.2, Table 3)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("adversarial")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.adversarial import ADVERSARIAL
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(ADVERSARIAL, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
