"""Begini's delivery test: sends a signed delivery to an account's webhook and reports the receiver's response.

Source: https://begini.helpjuice.com/webhooks-and-real-time-results/securing-webhooks-hmac
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from sidecar.config.presets import load_preset
from sidecar.config.settings import Account
from sidecar.verify.sign import sign

#: Seconds for the whole test, and until the receiver accepts the connection.
TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
#: How much of the receiver's response is returned, bytes.
MAX_RECEIVER_BODY = 64 * 1024


async def run_delivery_test(accounts: Sequence[Account], api_key: str | None) -> tuple[int, dict[str, Any]]:
    """Returns status and JSON body of the response. Never raises because of a caller's or a receiver's mistake."""
    if not api_key:
        return 400, {"detail": "No Api-key supplied"}
    account = _find_account(accounts, api_key.encode("latin-1"))
    if account is None:
        return 403, {"detail": "Invalid Api-key"}
    return await deliver(account)


def _find_account(accounts: Sequence[Account], api_key: bytes) -> Account | None:
    """Compares with every account, so that the time taken doesn't depend on which one is similar."""
    found = None
    for account in accounts:
        if account.api_key.matches(api_key):
            found = account
    return found


async def deliver(account: Account) -> tuple[int, dict[str, Any]]:
    """Sends a test delivery to an account's webhook. Returns status and JSON body as above."""
    if not account.webhook_url:
        return 424, {"detail": f"Webhooks not set for {account.id}, please set in Begini Dashboard"}
    import httpx  # noqa: PLC0415 - takes 4 MB and 50 ms, and most sidecars never send a test

    body = json.dumps({"event": "webhook.test", "account_id": account.id, "sent_at": int(time.time())}).encode()
    signed = sign(load_preset("begini"), account.api_key, body=body, now=time.time())
    # A few bytes of gzip can be a gigabyte of text: the response is read as it arrives, and never unpacked.
    headers = [*signed, ("Content-Type", "application/json"), ("Accept-Encoding", "identity")]
    host = urlsplit(account.webhook_url).hostname
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT), trust_env=False) as client,
            client.stream("POST", account.webhook_url, content=body, headers=headers) as response,
        ):
            content = b""
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MAX_RECEIVER_BODY:
                    break
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return 503, {"detail": f"Cannot connect to host {host} "}
    except (httpx.HTTPError, TimeoutError) as error:
        return 503, {"detail": f"No response from host {host}: {type(error).__name__}"}
    if response.is_success:
        return 200, {
            "webhook_receiver_status_code": response.status_code,
            "detail": "The receiver accepted the test delivery",
        }
    return 422, {
        "detail": {
            "webhook_receiver_status_code": response.status_code,
            "webhook_receiver_body_content": _mask_signature(content[:MAX_RECEIVER_BODY], signed).decode(
                "utf-8", "replace"
            ),
        }
    }


def _mask_signature(content: bytes, signed: Iterable[tuple[str, str]]) -> bytes:
    """Removes the signature, because some receivers echo it."""
    for _, value in signed:
        content = content.replace(value.encode(), b"<signature>")
    return content
