"""Inject features of a reference image into the images of a text-to-image generator (Section 4.3, Figures 10, 14)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("text_to_image")
def main(cfg: DictConfig) -> None:
    """Generate and measure images for the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.text_to_image import control_generation
    from mmmono.pipeline.workspace import Workspace

    control_generation(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
