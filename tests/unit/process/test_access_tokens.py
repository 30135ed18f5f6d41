"""Access tokens against a real server on loopback, with a clock set by hand."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from key_server import KeyServer, run_beside_server

from sidecar.config.settings import KeyClient
from sidecar.process import access_tokens
from sidecar.process.access_tokens import AccessToken, AccessTokens, read_token
from sidecar.process.key_channel import pack_source, unpack_source
from sidecar.process.key_fetch import Fetcher, FetchError, Result
from sidecar.secret import Secret
from sidecar.verify.published import ClientName, KeySource

HOST = "https://api.example.com"
NAME = ClientName(f"{HOST}/token", "keys read", "acme")
KEY = KeySource(f"{HOST}/key/a", "acme", listed=False, id="a", form="pem", client=NAME)
PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def client(secret: bytes = b"secret", name: ClientName = NAME) -> KeyClient:
    return KeyClient(name, Secret("s", secret), "acme")


def answer(token: str = "one", **more: object) -> bytes:
    return json.dumps({"access_token": token, "expires_in": 7200} | more).encode()


class Setup:
    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.clock = 1000.0
        self.tokens = AccessTokens(lambda: self.clock)
        self.fetcher = Fetcher({f"{HOST}/": f"{server.url}/"}, server.ca_file.read_text())
        self.tokens.apply([client()])

    async def get(self) -> str:
        return await self.tokens.get(self.fetcher, NAME)

    async def error(self) -> FetchError:
        with pytest.raises(FetchError) as caught:
            await self.tokens.fetch(self.fetcher, KEY)
        return caught.value


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    made.serve("/token", answer())
    made.serve("/key/a", PEM, authorization="Bearer one")
    yield made
    made.stop()


def play(server: KeyServer, scenario: Callable[[Setup], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Setup(server))

    run_beside_server(run())


def test_all_who_need_a_token_at_a_time_share_one_request(server: KeyServer) -> None:
    server.serve("/token", answer(), delay=0.2)

    async def scenario(it: Setup) -> None:
        assert await asyncio.gather(*(it.get() for _ in range(20))) == ["one"] * 20
        assert server.requests("/token") == 1
        assert server.heads[0].endswith(b"\r\n\r\ngrant_type=client_credentials&scope=keys+read")
        basic = base64.b64encode(b"acme:secret")
        assert b"\r\nauthorization: Basic " + basic + b"\r\n" in server.heads[0]

    play(server, scenario)


def test_who_gives_up_waiting_does_not_end_the_request_of_the_others(server: KeyServer) -> None:
    server.serve("/token", answer(), delay=0.2)

    async def scenario(it: Setup) -> None:
        impatient = asyncio.create_task(it.get())
        patient = asyncio.create_task(it.get())
        await asyncio.sleep(0.05)
        impatient.cancel()
        assert await patient == "one"
        assert server.requests("/token") == 1

    play(server, scenario)


def test_a_token_is_used_until_a_minute_before_its_end(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.get()
        it.clock += 7200 - 61
        assert await it.get() == "one"
        assert server.requests("/token") == 1
        server.serve("/token", answer("two", expires_in=30))
        it.clock += 2
        assert await it.get() == "two"
        it.clock += 14
        await it.get()
        assert server.requests("/token") == 2
        it.clock += 2
        await it.get()
        assert server.requests("/token") == 3

    play(server, scenario)


def test_a_token_that_the_key_server_rejects_is_replaced_once(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        assert (await it.tokens.fetch(it.fetcher, KEY)).content == PEM
        server.serve("/token", answer("two"))
        server.serve("/key/a", PEM, authorization="Bearer two")
        # One that is new is not replaced, so that a server which rejects each has few asked for.
        error = await it.error()
        assert (error.result, error.status, server.requests("/token")) == (Result.STATUS, 401, 1)
        assert "check that the application of client_id may fetch keys" in str(error)
        it.clock += access_tokens.MIN_AGE
        assert (await it.tokens.fetch(it.fetcher, KEY)).content == PEM
        assert server.requests("/token") == 2
        server.serve("/key/a", PEM, authorization="Bearer three")
        for _ in range(5):
            assert (await it.error()).status == 401
        assert server.requests("/token") == 2

    play(server, scenario)


def test_after_a_failure_nobody_asks_again_for_half_a_minute(server: KeyServer) -> None:
    server.serve("/token", b'{"error":"invalid_scope","error_description":"CANARY"}', status=400)

    async def scenario(it: Setup) -> None:
        for _ in range(5):
            error = await it.error()
            assert error.result is Result.CREDENTIALS
            wanted = f"got no access token: {NAME.token_url} responded with status 400 (invalid_scope); check the scope"
            assert str(error) == wanted
        assert (server.requests("/token"), server.requests("/key/a")) == (1, 0)
        server.serve("/token", answer())
        it.clock += access_tokens.PAUSE
        assert (await it.tokens.fetch(it.fetcher, KEY)).content == PEM

    play(server, scenario)


def test_new_credentials_count_at_once_and_the_same_ones_keep_their_token(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.get()
        assert it.tokens.apply([client()]) == []
        await it.get()
        assert server.requests("/token") == 1
        changed = client(b"changed")
        assert it.tokens.apply([changed]) == [changed]
        await it.get()
        assert server.requests("/token") == 2
        it.tokens.apply([])
        assert (await it.error()).result is Result.CREDENTIALS
        assert server.requests("/token") == 2

    play(server, scenario)


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, Result.CREDENTIALS),
        ({"endless": True}, Result.TOO_LARGE),
        ({"raw": b"\0" * 1000}, Result.UNREACHABLE),
        ({"content": b"<html>"}, Result.CREDENTIALS),
    ],
)
def test_a_token_endpoint_that_lies_gives_no_token(server: KeyServer, how: dict[str, object], result: Result) -> None:
    server.serve("/token", **how)  # type: ignore[arg-type]

    async def scenario(it: Setup) -> None:
        assert (await it.error()).result is result
        assert set(server.counts) == {"/token"}

    play(server, scenario)


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (answer("v^1.1#i^1#p^1=="), AccessToken("v^1.1#i^1#p^1==", 7200)),
        (answer(expires_in=10**9), AccessToken("one", 86400)),
        (answer(expires_in="soon"), AccessToken("one", 300)),
        (answer(expires_in=True), AccessToken("one", 300)),
        (answer(expires_in=-1), AccessToken("one", 300)),
        (answer("one\r\nX-Injected: 1"), None),
        (answer("x" * 8193), None),
        (answer(""), None),
        (b'{"access_token": 1}', None),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_only_visible_text_of_a_bounded_length_is_a_token(content: bytes, token: AccessToken | None) -> None:
    if token is not None:
        assert read_token(200, content) == token
        assert "one" not in repr(token)
        return
    with pytest.raises(FetchError, match="sent no access token; check token_url"):
        read_token(200, content)


def test_an_error_of_the_endpoint_is_repeated_only_if_it_is_a_known_one() -> None:
    with pytest.raises(FetchError) as caught:
        read_token(401, b'{"error":"CANARY","error_description":"CANARY"}')
    assert str(caught.value) == "responded with status 401; check client_id and client_secret"
    with pytest.raises(FetchError, match=r"^responded with status 503$"):
        read_token(503, b"CANARY")


def test_characters_of_the_credentials_that_could_be_mistaken_are_encoded() -> None:
    """RFC 6749, 2.3.1."""
    made = access_tokens._basic("a:b c", b"p%:\xc3\xa9")
    assert base64.b64decode(made.removeprefix("Basic ")) == b"a%3Ab+c:p%25%3A%C3%A9"


def test_a_worker_names_the_application_and_never_has_its_secret() -> None:
    packed = json.loads(json.dumps(pack_source(KEY)))
    assert packed["client"] == list(NAME)
    assert unpack_source(packed) == KEY
