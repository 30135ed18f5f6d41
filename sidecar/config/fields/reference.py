"""References to secrets, and to the replay store."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from marshmallow import ValidationError

from sidecar.config.fields.address import HOST
from sidecar.config.fields.number import Day
from sidecar.config.fields.text import Flag, JSONSchema, Label, NonEmpty, Value, shown
from sidecar.config.secrets import SecretRef
from sidecar.replay.store import StoreAddress


class SecretReference(Value):
    """`{id, env}` or `{id, file, optional}`, with `retire_by` if it has one; never the secret itself."""

    schema: ClassVar[JSONSchema] = {
        "title": "secret",
        "type": "object",
        "properties": {
            "id": Label.schema
            | {
                "description": "what logs and metrics call it; default: made from the variable's or the file's name",
                "examples": ["current"],
            },
            "env": NonEmpty.schema
            | {"description": "the environment variable that holds it", "examples": ["ACME_SECRET"]},
            "file": NonEmpty.schema
            | {
                "description": "instead: the file that holds it; a final newline is no part of it",
                "examples": ["/run/secrets/acme"],
            },
            "optional": Flag.schema | {"description": "true: the variable or file may be absent", "default": False},
            "retire_by": Day.schema
            | {
                "description": "the last day of its use: an alert says if it is used after, nothing is refused",
                "examples": ["2026-12-31"],
            },
        },
        "examples": [{"env": "ACME_SECRET"}, {"file": "/run/secrets/acme"}],
        "oneOf": [{"required": ["env"]}, {"required": ["file"]}],
        "additionalProperties": False,
    }
    _INLINE = "holds the secret itself; keep it out of the file and write where it stands: {env: NAME} or {file: /path}"

    def read(self, value: Any) -> SecretRef:
        if not isinstance(value, Mapping):
            raise ValidationError(self._INLINE)
        problems: dict[str, list[str]] = {}
        kinds = {"id": Label(), "env": NonEmpty(), "file": NonEmpty(), "optional": Flag(), "retire_by": Day()}
        for key in value:
            if key in ("value", "secret", "key", "inline", "plain", "text", "literal"):
                problems[key] = [self._INLINE]
            elif key not in kinds:
                problems[key] = [f"unknown key; known keys are {', '.join(kinds)}"]
        result: dict[str, Any] = {"id": "", "env": "", "file": "", "optional": False}
        for key, kind in kinds.items():
            if key in value:
                try:
                    result[key] = kind.deserialize(value[key])
                except ValidationError as error:
                    problems[key] = list(error.messages)
        if problems:
            raise ValidationError(problems)
        if bool(result["env"]) == bool(result["file"]):
            raise ValidationError("needs exactly one of env and file; for example {env: BEGINI_API_KEY}")
        result["id"] = (
            result["id"] or re.sub(r"[^A-Za-z0-9._-]", "_", result["env"] or result["file"].rsplit("/", 1)[-1])[:63]
        )
        return SecretRef(**result)


class ReplayStoreRef(NamedTuple):
    """Where `replay:` remembers. Without an address in the process's own memory."""

    address: StoreAddress | None
    password: SecretRef | None


class ReplayStore(Value):
    """`memory`, `redis://host:6379/0`, or `{url, password}`; the password is never in the URL."""

    schema: ClassVar[JSONSchema] = {
        "title": "store",
        "anyOf": [
            {"const": "memory"},
            {"type": "string", "pattern": r"^(rediss?://[^@/]+(/[0-9]{0,4})?|unix:/.+)$"},
            {
                "type": "object",
                "properties": {
                    "url": {
                        "title": "URL",
                        "type": "string",
                        "pattern": r"^(rediss?://([^:@/]+@)?[^@/]+(/[0-9]{0,4})?|unix:/.+)$",
                        "description": "where it is; rediss:// for TLS",
                        "examples": ["rediss://redis.example:6379/0"],
                    },
                    "password": SecretReference.schema | {"description": "the password of the URL's user"},
                },
                "required": ["url"],
                "additionalProperties": False,
            },
        ],
    }
    _EXAMPLE = "for example redis://127.0.0.1:6379/0, rediss:// for TLS, or unix:/run/redis.sock"

    def write(self, value: Any) -> str:
        return str(value.address or "memory")

    def read(self, value: Any) -> ReplayStoreRef:
        if value == "memory":
            return ReplayStoreRef(None, None)
        if not isinstance(value, Mapping):
            address = self._address(value)
            if address.username:
                raise ValidationError(
                    "has a user and no password; write {url: redis://user@host:6379/0, password: {env: NAME}}"
                )
            return ReplayStoreRef(address, None)
        problems = {
            key: ["unknown key; known keys are url, password"] for key in value if key not in ("url", "password")
        }
        if "url" not in value:
            problems["url"] = [f"is required; {self._EXAMPLE}"]
        read: dict[str, Any] = {}
        for key, kind in (("url", self._address), ("password", SecretReference().read)):
            try:
                read[key] = kind(value[key]) if key in value else None
            except ValidationError as error:
                problems[key] = error.messages  # type: ignore[assignment]  # a tree, for a reference
        if problems:
            raise ValidationError(problems)
        return ReplayStoreRef(read["url"], read["password"])

    def _address(self, value: Any) -> StoreAddress:
        text = str(value)
        written = shown(text) if "@" not in text else "this URL"  # before an @ a password may stand
        if text.startswith("unix:/"):
            return StoreAddress(False, "", 0, text[5:], 0, "")
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port
        except ValueError:
            raise ValidationError(f"is not a URL; {self._EXAMPLE}") from None
        if url.password is not None:
            raise ValidationError(
                "holds the password itself; keep it out of the file and write {url: redis://host:6379/0, password: {env: NAME}}"
            )
        database = url.path.strip("/") or "0"
        if url.scheme not in ("redis", "rediss") or not HOST.fullmatch(host) or port == 0 or url.query or url.fragment:
            raise ValidationError(f"{written} is no store; use memory, or {self._EXAMPLE}")
        if not database.isascii() or not database.isdigit() or len(database) > 4:
            raise ValidationError(f"{written} has no number of a database as its path; {self._EXAMPLE}")
        return StoreAddress(url.scheme == "rediss", host, port or 6379, "", int(database), url.username or "")
