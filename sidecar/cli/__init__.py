"""The `sidecar` command: one file a command, and `main` that finds it."""
