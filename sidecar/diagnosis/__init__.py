"""Why does a signature not match? Hints on live traffic, and `sidecar explain`."""
