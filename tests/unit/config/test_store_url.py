"""The spellings of `replay_store`."""

import pytest

from sidecar.config.fields.reference import ReplayStore
from sidecar.replay.store import StoreAddress, StoreKind


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("redis://r.example", StoreAddress(False, (("r.example", 6379),), "", 0, ""), "redis://r.example:6379/0"),
        ("rediss://[::1]:7/3", StoreAddress(True, (("::1", 7),), "", 3, ""), "rediss://[::1]:7/3"),
        ("unix:/run/r.sock", StoreAddress(False, (), "/run/r.sock", 0, ""), "unix:/run/r.sock"),
        (
            "redis+cluster://a.example,[::1]:7",
            StoreAddress(False, (("a.example", 6379), ("::1", 7)), "", 0, "", StoreKind.CLUSTER),
            "redis+cluster://a.example:6379,[::1]:7",
        ),
        (
            "rediss+sentinel://a.example,b.example:7/my-primary/2",
            StoreAddress(True, (("a.example", 26379), ("b.example", 7)), "", 2, "", StoreKind.SENTINEL, "my-primary"),
            "rediss+sentinel://a.example:26379,b.example:7/my-primary/2",
        ),
        (
            "redis+sentinel://a.example/p",
            StoreAddress(False, (("a.example", 26379),), "", 0, "", StoreKind.SENTINEL, "p"),
            "redis+sentinel://a.example:26379/p/0",
        ),
    ],
)
def test_a_store_is_read_and_shown_with_its_ports(text: str, address: StoreAddress, written: str) -> None:
    store = ReplayStore().read(text)
    assert store.address == address
    assert str(address) == written
    assert ReplayStore().read(written).address == address


def test_the_user_is_before_the_first_address() -> None:
    given = {"url": "redis+cluster://sidecar@a.example,b.example", "password": {"env": "PASSWORD"}}
    store = ReplayStore().read(given)
    assert store.address is not None
    assert (store.address.username, len(store.address.hosts)) == ("sidecar", 2)
    assert str(store.address) == "redis+cluster://sidecar@a.example:6379,b.example:6379"
