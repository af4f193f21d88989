"""Inject features of a reference image into the images of a text-to-image generator (Section 4.3, Figures 10, 14)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("text_to_image")
def main(cfg: Config) -> None:
    """Generate and measure images for the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.text_to_image import TEXT_TO_IMAGE
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(TEXT_TO_IMAGE, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
