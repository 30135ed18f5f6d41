"""What runs: start, reload, workers, and a SIGTERM that loses nothing."""
