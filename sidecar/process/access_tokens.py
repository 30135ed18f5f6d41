"""Access tokens of applications at providers (RFC 6749, 4.4: client credentials), for requests that fetch keys.

A token is requested at the start, at a reload after new credentials or a failure, and when a key is needed and the last token is
about to expire. Everything that needs it waits for one request. After a failure none is requested for half a minute: strangers
choose ids of keys, and must not be able to lock an application out of its provider. No request contains anything from a delivery.
"""

import asyncio
import math
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from urllib.parse import quote_plus, urlencode

from sidecar.config.settings import KeyClient
from sidecar.process.key_fetch import Fetched, Fetcher, FetchError, Result
from sidecar.verify.document import parse_json
from sidecar.verify.published import ClientName, KeySource

#: A token is not used in its last seconds: this many, or half of its life if that is shorter.
EARLY: Final = 60.0
#: Seconds for which a token is used if its endpoint doesn't say, and at most if it does.
DEFAULT_LIFETIME: Final = 300.0
MAX_LIFETIME: Final = 86400.0
#: Seconds after a failure in which no token is requested.
PAUSE: Final = 30.0
#: Seconds for which a token that a key server rejects stays in use, so that it can't cause one request after another.
MIN_AGE: Final = 60.0
#: Any visible ASCII: eBay's tokens have `^` and `#` (RFC 6749, appendix A.12).
_TOKEN: Final = re.compile(r"[!-~]{1,8192}")
#: The remedies for the errors of RFC 6749, 5.2. Other errors are not repeated in the log.
_REMEDIES: Final = {
    "invalid_client": "check client_id and client_secret",
    "invalid_scope": "check the scope",
    "unauthorized_client": "have the provider allow the application to use client credentials",
    "invalid_request": "check token_url",
    "unsupported_grant_type": "check token_url",
}


class AccessToken(NamedTuple):
    """The response of a token endpoint. `lifetime` is in seconds."""

    text: str
    lifetime: float

    def __repr__(self) -> str:
        return f"AccessToken(<secret>, {self.lifetime!r})"


class _Client:
    """One application, and its token."""

    __slots__ = ("authorization", "began", "error", "source", "task", "text", "until")

    def __init__(self, source: str, authorization: str) -> None:
        self.source = source
        self.authorization = authorization
        self.text = ""
        self.began = -math.inf  #: of the token or the error, monotonic seconds
        self.until = -math.inf  #: when to request another one, monotonic seconds
        self.error: FetchError | None = None
        self.task: asyncio.Task[None] | None = None


class AccessTokens:
    """The tokens of one configuration's applications."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._clients: dict[ClientName, _Client] = {}

    def apply(self, clients: Iterable[KeyClient]) -> list[KeyClient]:
        """The applications to request a token for: those with new credentials, and those without a token."""
        before, self._clients = self._clients, {}
        new = []
        for each in clients:
            made = _Client(each.source, _basic(each.name.id, each.secret.reveal()))
            known = before.get(each.name)
            if known is None or known.authorization != made.authorization or known.error is not None:
                self._clients[each.name] = made
                new.append(each)
            else:
                self._clients[each.name] = known
        return new

    async def fetch(self, fetcher: Fetcher, source: KeySource) -> Fetched:
        """A document, with the token that it needs. Raises `FetchError`."""
        if source.client is None:
            return await fetcher.fetch(source)
        token = await self.get(fetcher, source.client)
        try:
            return await fetcher.fetch(source, token)
        except FetchError as error:
            if error.status != 401 or not self._discard(source.client, token):
                raise
        return await fetcher.fetch(source, await self.get(fetcher, source.client))

    async def get(self, fetcher: Fetcher, name: ClientName) -> str:
        """The token of an application, requested if there is none. Raises `FetchError`."""
        client = self._clients.get(name)
        if client is None:
            raise FetchError(Result.CREDENTIALS, "the configuration no longer has the credentials for this key")
        if client.until <= self._monotonic():
            if client.task is None:
                client.task = asyncio.get_running_loop().create_task(self._ask(client, fetcher, name))
            await asyncio.shield(client.task)
        if client.error is not None:
            raise FetchError(client.error.result, str(client.error))
        return client.text

    def _discard(self, name: ClientName, token: str) -> bool:
        """Discards a token that the key server rejects; False if it is too new for that."""
        client = self._clients.get(name)
        if client is None or client.text != token:
            return client is not None  # there is another one already
        if self._monotonic() - client.began < MIN_AGE:
            return False
        client.until = -math.inf
        return True

    async def _ask(self, client: _Client, fetcher: Fetcher, name: ClientName) -> None:
        """Never raises: the waiting tasks read the result."""
        form = {"grant_type": "client_credentials"} | ({"scope": name.scope} if name.scope else {})
        try:
            status, content = await fetcher.post_form(name.token_url, urlencode(form).encode(), client.authorization)
            token = read_token(status, content)
        except FetchError as error:
            client.text, client.error = "", FetchError(error.result, f"got no access token: {name.token_url} {error}")
        except Exception as bug:  # of this program or its libraries
            client.text, client.error = "", FetchError(Result.CREDENTIALS, f"got no access token: {type(bug).__name__}")
        else:
            client.text, client.error = token.text, None
        client.began = self._monotonic()
        client.until = client.began + (
            PAUSE if client.error is not None else token.lifetime - min(EARLY, token.lifetime / 2)
        )
        client.task = None


def read_token(status: int, content: bytes) -> AccessToken:
    """The token in a response (RFC 6749, 5.1). Raises `FetchError`, whose message quotes a known error and nothing else."""
    try:
        found = parse_json(content)
    except ValueError:
        found = None
    members = found if isinstance(found, dict) else {}
    if status != 200:
        code = members.get("error")
        known = code if isinstance(code, str) and code in _REMEDIES else ""
        remedy = _REMEDIES[known] if known else "check client_id and client_secret" if status in (400, 401, 403) else ""
        detail = f"responded with status {status}{f' ({known})' if known else ''}{f'; {remedy}' if remedy else ''}"
        raise FetchError(Result.CREDENTIALS, detail, status=status)
    text, lifetime = members.get("access_token"), members.get("expires_in")
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        raise FetchError(Result.CREDENTIALS, "sent no access token; check token_url")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or lifetime <= 0:
        lifetime = DEFAULT_LIFETIME
    return AccessToken(text, min(float(lifetime), MAX_LIFETIME))


def _basic(client: str, secret: bytes) -> str:
    """The credentials in a header (RFC 6749, 2.3.1)."""
    return "Basic " + b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
