"""Run by `make image-test` only."""

from engine import engine, image, pytest_collection_modifyitems, pytest_configure  # noqa: F401 - fixtures and hooks
