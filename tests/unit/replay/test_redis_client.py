"""What connections to the servers of a shared store have in common."""

import asyncio
import ssl

import pytest
import redis
from ports import free_ports

from sidecar.replay.redis_client import make_client
from sidecar.replay.redis_store import Password
from sidecar.replay.store import StoreAddress, StoreKind


def test_the_systems_certificates_are_read_once_for_all_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything waits while they are read."""
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def note() -> ssl.SSLContext:
        made.append(make())
        return made[-1]

    monkeypatch.setattr("ssl.create_default_context", note)
    hosts = tuple(("127.0.0.1", port) for port in free_ports(3))
    address = StoreAddress(True, hosts, "", 0, "", StoreKind.CLUSTER)

    async def ask() -> None:
        nobody = Password("", lambda: None)
        client = make_client(address, nobody, nobody)
        with pytest.raises(redis.ConnectionError):
            await client.probes("probe")  # asks one after another
        await client.close()

    asyncio.run(ask())
    assert len(made) == 1
