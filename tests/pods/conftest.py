"""Run by `make image-test` only."""

import pytest
from engine import engine, image, pytest_collection_modifyitems, pytest_configure  # noqa: F401 - fixtures and hooks
from pods import build_receiver


@pytest.fixture(scope="session")
def receiver_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811 - the base is there then
    return build_receiver(tmp_path_factory.mktemp("receiver"))
