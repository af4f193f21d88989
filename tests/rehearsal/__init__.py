"""The whole paper against a model hub, a content server and a judge on loopback: see `python -m tests.rehearsal --help`."""
