"""The `sidecar` command: one file per command, and `main`, which finds and runs it."""
