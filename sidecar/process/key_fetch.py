"""Fetches one document of keys: over https, without redirects, bounded in size and time.

httpx and the authorities of TLS are loaded when the first document is fetched, in a thread: together they take a tenth of a
second and 10 MB, which a program without published keys does not pay.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from sidecar.verify.document import parse_json
from sidecar.verify.published import Document, KeySource, linked_source

if TYPE_CHECKING:
    import httpx

#: Bytes of a list of keys. Microsoft's, the largest of those known, has 20 KB.
MAX_LIST_BYTES = 256 * 1024
#: Bytes of the document of one key or certificate.
MAX_KEY_BYTES = 64 * 1024
MAX_KEYS = 100
#: Seconds, from the first packet to the last byte.
FETCH_SECONDS = 10.0
#: Seconds for which a document counts as new: the server's `Cache-Control`, within these bounds.
LIFETIMES = (300.0, 86400.0)
DEFAULT_LIFETIME = 3600.0

#: One spelling only, so that no two readers of a URL can disagree about its host.
_URL = re.compile(r"https://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::[0-9]{1,5})?(?:[/?][!-\"$-\[\]-~]*)?")
_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?([0-9]{1,10})', re.IGNORECASE)
#: Statuses with which a server says that there is no key of an id.
_ABSENT = frozenset({400, 404, 410})
#: Client errors that say nothing about the id.
_OUR_FAULT = frozenset({401, 407, 408, 425, 429})
_MAX_ID = 64


class Result(StrEnum):
    """How a fetch ended; label `result` of `webhook_sidecar_key_fetches_total`."""

    OK = "ok"
    ABSENT = "absent"  # a 4xx for the id that a delivery named: any stranger can cause it
    STATUS = "status"  # any other status than 200, redirects included
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"  # status 200, but no keys
    CREDENTIALS = "credentials"  # the provider gave no access token, which its keys need


class FetchError(Exception):
    """A fetch that brought no document. The message is for the log, and quotes nothing that the server sent."""

    def __init__(self, result: Result, detail: str, *, certain: bool = False, status: int = 0) -> None:
        """`certain`: the provider has no key of the id. `status`: that of the response, if there was one."""
        super().__init__(detail)
        self.status = status
        self.result = result
        self.certain = certain


class Fetched(NamedTuple):
    """A document that can be used."""

    content: bytes
    content_type: str
    lifetime: float  #: seconds for which it counts as new
    ids: tuple[str, ...]  #: of its keys, for the log
    linked: KeySource | None  #: of a discovery document: the document of keys that it names


class Fetcher:
    """Fetches documents from one set of mirrors, with one set of authorities."""

    def __init__(self, mirrors: Mapping[str, str], authorities: str = "") -> None:
        """`authorities` (PEM) are trusted besides the system's."""
        self._mirrors = mirrors
        self._authorities = authorities
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def fetch(self, source: KeySource, access_token: str = "") -> Fetched:
        """Raises `FetchError`. The token is sent to the source's host, or to its mirror, and to no other."""
        if _URL.fullmatch(source.url) is None:
            raise FetchError(Result.UNREACHABLE, "is not a plain https URL")
        url = resolve_mirror(source.url, self._mirrors)
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                context = await asyncio.to_thread(self._prepare, source.roots if url == source.url else "")
                content, headers = await _get(url, source, context, access_token)
        except TimeoutError:
            raise FetchError(Result.TIMEOUT, f"took longer than {FETCH_SECONDS:g} s") from None
        except OSError as error:
            raise FetchError(Result.UNREACHABLE, f"could not be reached ({type(error).__name__})") from None
        content_type = headers.get("content-type", "")[:100]
        document = Document(content, 0.0, content_type)
        ids, linked = await asyncio.to_thread(inspect, source, document)
        return Fetched(content, content_type, lifetime_of(headers), ids, linked)

    async def post_form(self, url: str, form: bytes, authorization: str) -> tuple[int, bytes]:
        """Posts a form; status and content of the response, whatever it is. Raises `FetchError` if there is none."""
        if _URL.fullmatch(url) is None:
            raise FetchError(Result.CREDENTIALS, "is not a plain https URL")
        headers = {"authorization": authorization, "content-type": "application/x-www-form-urlencoded"}
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                context = await asyncio.to_thread(self._prepare, "")
                async with _stream(resolve_mirror(url, self._mirrors), headers, form, context) as response:
                    return response.status_code, await _read_at_most(response, MAX_KEY_BYTES)
        except TimeoutError:
            raise FetchError(Result.TIMEOUT, f"took longer than {FETCH_SECONDS:g} s") from None
        except OSError as error:
            raise FetchError(Result.UNREACHABLE, f"could not be reached ({type(error).__name__})") from None

    async def call(self, url: str, name: str) -> None:
        """Calls an address only for its effect. Raises `FetchError` unless the response has status 200."""
        if _URL.fullmatch(url) is None:
            raise FetchError(Result.UNREACHABLE, "is not a plain https URL", certain=True)
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                context = await asyncio.to_thread(self._prepare, "")
                await _get(resolve_mirror(url, self._mirrors), KeySource(url, name, listed=False), context)
        except TimeoutError:
            raise FetchError(Result.TIMEOUT, f"took longer than {FETCH_SECONDS:g} s") from None
        except OSError as error:
            raise FetchError(Result.UNREACHABLE, f"could not be reached ({type(error).__name__})") from None

    def _prepare(self, roots: str) -> ssl.SSLContext:
        """The TLS settings, with the authorities in `roots` (PEM) instead of the system's if given. Call it in a thread."""
        import httpx  # noqa: F401, PLC0415

        context = self._contexts.get(roots)
        if context is None:
            context = ssl.create_default_context(cadata=roots or None)
            if self._authorities and not roots:
                context.load_verify_locations(cadata=self._authorities)
            self._contexts[roots] = context
        return context


def resolve_mirror(url: str, mirrors: Mapping[str, str]) -> str:
    """The URL to fetch instead of `url`. A mirror whose name ends in `/` is one of everything below; the longest name counts."""
    if url in mirrors:
        return mirrors[url]
    for above in sorted(mirrors, key=len, reverse=True):
        if above.endswith("/") and url.startswith(above):
            return mirrors[above] + url[len(above) :]
    return url


def lifetime_of(headers: Mapping[str, str]) -> float:
    """Seconds for which a response counts as new (RFC 9111, 4.2), within `LIFETIMES`."""
    found = _MAX_AGE.search(headers.get("cache-control", "")[:1000])
    if found is None:
        return DEFAULT_LIFETIME
    age = headers.get("age", "")
    spent = int(age) if age.isascii() and age.isdigit() and len(age) <= 10 else 0
    return min(max(float(int(found[1]) - spent), LIFETIMES[0]), LIFETIMES[1])


def inspect(source: KeySource, document: Document) -> tuple[tuple[str, ...], KeySource | None]:
    """The ids of a document's keys, and the document that it names. Raises `FetchError` if a verifier can't use it."""
    if source.form == "discovery":
        linked = linked_source(source, document)
        if linked is None:
            raise FetchError(Result.UNUSABLE, "names no jwks_uri on a host that is allowed")
        return (), linked
    try:
        ids = tuple(_ids(document.content))
    except ValueError:
        raise FetchError(Result.UNUSABLE, "is neither JSON nor PEM") from None
    if not source.listed:
        return (), None
    if not ids:
        raise FetchError(Result.UNUSABLE, "holds no keys")
    if len(ids) > MAX_KEYS:
        raise FetchError(Result.UNUSABLE, f"holds more than {MAX_KEYS} keys")
    from sidecar.verify.key_documents import read_keys  # noqa: PLC0415 - loads `cryptography`, as its verifier has

    try:
        read_keys(source.form, document.content)
    except ValueError:
        raise FetchError(Result.UNUSABLE, "holds no key that can be used") from None
    return ids, None


def _ids(content: bytes) -> Iterator[str]:
    """Raises `ValueError` for content that is neither JSON nor PEM."""
    if content.lstrip().startswith(b"-----BEGIN "):
        yield "pem"
        return
    found = parse_json(content)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    keys = found.get("keys", found.get("signing_keys"))
    if isinstance(keys, list):
        yield from (str(key.get("kid") or "without kid")[:_MAX_ID] for key in keys if isinstance(key, dict))
    else:
        yield from (name[:_MAX_ID] for name, key in found.items() if isinstance(key, str) and "-----BEGIN " in key)


async def _get(
    url: str, source: KeySource, context: ssl.SSLContext, access_token: str = ""
) -> "tuple[bytes, Mapping[str, str]]":
    """Content and headers of a response with status 200."""
    headers = dict(source.headers) | ({"authorization": f"Bearer {access_token}"} if access_token else {})
    async with _stream(url, headers, source.post, context) as response:
        return await _read(response, source), response.headers


@asynccontextmanager
async def _stream(
    url: str, headers: Mapping[str, str], content: bytes, context: ssl.SSLContext
) -> "AsyncIterator[httpx.Response]":
    """The response to a GET or, with `content`, to a POST. Raises `FetchError`."""
    import httpx  # noqa: PLC0415 - in memory by now

    common = {"accept-encoding": "identity", "user-agent": "webhook-sidecar"}
    # `trust_env=False`: no proxy of the environment, and no password that ~/.netrc has for the host.
    client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS)
    method = "POST" if content else "GET"
    try:
        async with (
            client,
            client.stream(method, url, headers=common | dict(headers), content=content or None) as response,
        ):
            yield response
    except httpx.TimeoutException as error:
        raise FetchError(Result.TIMEOUT, f"did not respond in time ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if _is_tls(error):
            raise FetchError(Result.TLS, "has a certificate that is not trusted, or breaks TLS") from None
        raise FetchError(Result.UNREACHABLE, f"could not be reached ({type(error).__name__})") from None


async def _read(response: "httpx.Response", source: KeySource) -> bytes:
    status = response.status_code
    if source.client is not None and status in (401, 403):
        detail = (
            f"responded with status {status} to an access token; check that the application of client_id may fetch keys"
        )
        raise FetchError(Result.STATUS, detail, status=status)
    if not source.listed and 400 <= status < 500 and status not in _OUR_FAULT:
        # A store of certificates may say 403 for one that it doesn't have, and a firewall for one that it has.
        raise FetchError(Result.ABSENT, f"responded with status {status}", certain=status in _ABSENT)
    if status != 200:
        raise FetchError(Result.STATUS, f"responded with status {status}")
    return await _read_at_most(response, MAX_LIST_BYTES if source.listed else MAX_KEY_BYTES)


async def _read_at_most(response: "httpx.Response", most: int) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > most:
            raise FetchError(Result.TOO_LARGE, f"sent more than {most} bytes")
    return bytes(content)


def _is_tls(error: BaseException) -> bool:
    """Whether a failed connection was one of TLS. httpx keeps the cause, not its kind."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
