"""Write a dictionary with its model card into a folder, and put it on the hub."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("publish")
def main(cfg: Config) -> None:
    """Make the dictionary unless it exists, write its folder, and upload it if a repository is given."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.commands.publish.command import publish
    from mmmono.pipeline.workspace import Workspace

    publish(Workspace(cfg, makes="dictionaries"))


if __name__ == "__main__":
    main()
