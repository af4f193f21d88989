"""The edge: configuration comes in, addressed artifacts come out. The only folder that knows Hydra."""
