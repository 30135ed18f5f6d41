"""Signed deliveries of senders that publish their keys: as files hold them, and the configuration that each sender needs.

The files in tests/vectors/published have keys and certificates that were made for them; `by` says which library or rule gave a
verdict. A URL of `keys` that ends in `*` covers all other URLs, and `trap` marks one that must never be fetched.
"""

import base64
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sidecar.verify.published import Document, KeySource

Vector = dict[str, Any]
Settings = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "vectors" / "published"


@functools.cache
def sender(name: str) -> dict[str, Any]:
    """The file of a sender."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


SENDERS = tuple(sorted(file.stem for file in FOLDER.glob("*.json")))


def body_of(vector: Vector) -> bytes:
    text = vector.get("body", "")
    return base64.b64decode(text) if vector.get("base64") else text.encode()


def target_of(vector: Vector) -> str:
    url = urlsplit(vector["url"])
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def origin_of(vector: Vector) -> str:
    url = urlsplit(vector["url"])
    return f"{url.scheme}://{url.netloc}"


def raw_of(vector: Vector) -> bytes:
    """The delivery as bytes, for `explain`."""
    body = body_of(vector)
    names = {name.lower() for name, _ in vector["headers"]}
    head = f"{vector['method']} {target_of(vector)} HTTP/1.1\r\n"
    if "host" not in names:
        head += f"Host: {urlsplit(vector['url']).netloc}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in vector["headers"] if name.lower() != "content-length")
    return head.encode("latin-1", "replace") + b"Content-Length: %d\r\n\r\n" % len(body) + body


@dataclass
class FakeStore:
    """The documents of a file, as in a store that has fetched all of them."""

    keys: dict[str, dict[str, Any]]
    asked: list[str] = field(default_factory=list)
    made: dict[str, Document] = field(default_factory=dict)

    def get(self, source: KeySource) -> Document | None:
        name = f"{source.url}#{source.id}" if source.post else source.url
        self.asked.append(name)
        if name not in self.made:
            served = self.keys.get(name) or self._every_other(name)
            assert served is not None, f"{name} is not a document of this sender"
            assert not served.get("trap"), f"{name} must never be fetched"
            content = served.get("content", "") if served.get("status", 200) == 200 else ""
            self.made[name] = Document(content.encode(), 0.0, served.get("content_type", ""))
        return self.made[name]

    def _every_other(self, name: str) -> dict[str, Any] | None:
        return next((each for key, each in self.keys.items() if key.endswith("*") and name.startswith(key[:-1])), None)

    def used(self, source: KeySource) -> None:
        assert not source.listed

    async def refresh(self, source: KeySource) -> bool:
        return False


#: Makes the value of `verify:` from a vector and the settings.
CONFIGURED: dict[str, Callable[[Settings, Settings], Any]] = {
    "google-pubsub": lambda it, _: {"preset": "google-pubsub", "audience": it["audience"], "email": it["email"]},
    "google-chat": lambda _, own: {"preset": "google-chat", "audience": own["audience"]}
    if own["audience_type"] == "project-number"
    else {"preset": "google-chat-endpoint", "audience": own["audience"], "email": own["email"]},
    "github-actions-oidc": lambda it, _: {
        "preset": "github-actions-oidc", "audience": it["audience"],
    } | it["claims"],
    "botframework": lambda it, _: {"preset": "botframework", "app_id": it["app_id"]},
    "microsoft-graph-rich": lambda it, _: {
        "preset": "microsoft-graph-rich", "app_ids": it["app_ids"], "tenants": it["tenants"],
    },
    "azure-event-grid": lambda it, _: {
        "preset": "azure-event-grid", "audience": it["audience"], "tenants": it["tenants"],
    },
    "plaid": lambda it, _: {"preset": "plaid", "client_id": it["client_id"]},
    "netlify": lambda it, _: {"preset": "netlify"},
    "qstash": lambda it, _: {"preset": "qstash"},
    "livekit": lambda it, _: {"preset": "livekit", "api_key": it["api_key"]},
    "vonage": lambda it, _: {"preset": "vonage"},
    "messagebird": lambda it, _: {"preset": "messagebird"},
    "fusionauth": lambda it, own: {"preset": "fusionauth", "algorithms": own["algorithms"]}
    if own["kind"] == "hmac"
    else {"preset": "fusionauth-jwks", "jwks_url": it["jwks_url"], "algorithms": own["algorithms"]},
    "monday": lambda it, _: {"preset": "monday"},
    "atlassian-connect": lambda it, own: {"preset": "atlassian-connect", "client_key": it["client_key"]}
    if own["call"] == "webhook"
    else {"preset": "atlassian-connect-lifecycle", "base_url": it["base_url"]},
    "kinde": lambda it, _: {"preset": "kinde", "domain": it["domain"]},
    "amazon-sns": lambda it, own: {
        "preset": "amazon-sns",
        "topic_arns": it["topic_arns"],
        "signature_versions": own.get("signature_versions", it["signature_versions"]),
    },
    "paypal": lambda it, own: {
        "preset": "paypal",
        "webhook_id": it["webhook_id"],
        "roots": sender("paypal")["trust"],
        "intermediates": it["intermediates"],
    },
    "apple-app-store": lambda it, _: {
        "preset": "apple-app-store",
        "root": sender("apple-app-store")["trust"],
        "bundle_id": it["bundle_id"],
        "app_apple_id": it["app_apple_id"],
    },
    "fal": lambda it, _: {"preset": "fal", "user_id": "user-1"},
    "turnkey": lambda it, _: {"preset": "turnkey"},
    "ebay": lambda _, __: {"preset": "ebay", "client_id": "app", "client_secret": {"env": "EBAY_CLIENT_SECRET"}},
    "constant-contact": lambda it, _: {"preset": "constant-contact"},
    "truelayer": lambda it, _: {"preset": "truelayer"},
    "keygen": lambda it, _: {"preset": "keygen"},
}  # fmt: skip


def verify_of(name: str, vector: Vector) -> dict[str, Any]:
    """The value of `verify:` for a vector; with the vector's skew if its verdict needs a small one."""
    if name == "rfc9421":
        return _http_signature(vector)
    made: dict[str, Any] = CONFIGURED[name](sender(name)["settings"], vector.get("settings", {}))
    if "max_skew" in vector:
        made |= {"skew": f"{vector['max_skew']}s" if vector["max_skew"] else "none"}
    return made


def secrets_of(name: str, vector: Vector) -> dict[str, str]:
    """The secrets by their ids."""
    given = vector.get("secret")
    if name == "plaid":
        given = "the secret that Plaid requires to send a key"
    if name == "rfc9421":
        keys = sender(name)["settings"]["configured"]
        shared = _is_hmac(vector)
        return {
            key: text["base64"] if shared else text for key, text in keys.items() if isinstance(text, dict) is shared
        }
    return {
        f"s{number}": text for number, text in enumerate(given if isinstance(given, list) else [given] if given else [])
    }


def _is_hmac(vector: Vector) -> bool:
    """Whether a delivery of `rfc9421` names a key that is a shared secret."""
    named = "".join(value for name, value in vector["headers"] if name == "Signature-Input")
    return "hmac-1" in named or "test-shared-secret" in named


def _http_signature(vector: Vector) -> dict[str, Any]:
    own = vector["settings"]
    made: dict[str, Any] = {"preset": "http-signature", "required": own["required"]}
    made |= {name: own[name] for name in ("max_age", "tag", "label") if own.get(name) is not None}
    if "content-digest" not in own["required"]:
        made["binds_body"] = False
    return made | ({"algorithms": "hmac-sha256", "key": "base64"} if _is_hmac(vector) else {})


def public_url_of(name: str, vector: Vector) -> str:
    return "https://receiver.example/addon" if name == "atlassian-connect" else origin_of(vector)


def every_vector() -> list[tuple[str, Vector]]:
    return [(name, vector) for name in SENDERS for vector in sender(name)["vectors"]]
