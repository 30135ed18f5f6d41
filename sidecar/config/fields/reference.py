"""References to secrets, and to the replay store."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sidecar.config.fields.address import HOST, PORT, SOCKET, explain_socket, without_brackets
from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import Key, Section
from sidecar.config.fields.number import Day
from sidecar.config.fields.text import Flag, Label, NonEmpty
from sidecar.config.secrets import SecretRef
from sidecar.replay.store import StoreAddress

#: The error for a secret that is written in the file.
INLINE_SECRET = "holds the secret itself; move it out of the file and refer to it: {env: NAME} or {file: /path}"  # noqa: S105 - a message
#: Keys that somebody might expect to hold the secret. Their values are never repeated in messages.
_INLINE_KEYS = frozenset({"value", "secret", "key", "inline", "plain", "text", "literal"})


class SecretReference(Section[SecretRef]):
    """`{id, env}` or `{id, file, optional}`, and possibly `retire_by`. Never the secret itself."""

    title = "secret"

    def __init__(self) -> None:
        super().__init__(
            None,
            {
                "id": Key(
                    Label(),
                    "what logs and metrics call it; default: made from the name of the variable or file",
                    ["current"],
                ),
                "env": Key(NonEmpty(), "the environment variable that holds it", ["ACME_SECRET"]),
                "file": Key(
                    NonEmpty(),
                    "instead of env: the file that holds it; one final newline is not part of the secret",
                    ["/run/secrets/acme"],
                ),
                "optional": Key(Flag(), "true: the variable or file may be absent", default=False),
                "retire_by": Key(
                    Day(),
                    "the last day on which it should be used; later use raises an alert and rejects nothing",
                    ["2026-12-31"],
                ),
            },
            one_of=("env", "file"),
            example="{env: BEGINI_API_KEY}",
            make=_make_reference,
        )

    def read_keys(self, value: Any) -> tuple[dict[str, Any], list[Any]]:
        if not isinstance(value, Mapping):
            return {}, [((), INLINE_SECRET)]
        given, mistakes = super().read_keys(value)
        of_keys = [mistake for mistake in mistakes if mistake[0]]
        return given, of_keys or mistakes  # a wrong key says more than that the right one is missing

    def explain_unknown(self, name: str) -> str:
        return INLINE_SECRET if name in _INLINE_KEYS else super().explain_unknown(name)

    def json_schema(self) -> JSONSchema:
        examples = [{"env": "ACME_SECRET"}, {"file": "/run/secrets/acme"}]
        return {"title": self.title} | super().json_schema() | {"examples": examples}


def _make_reference(given: dict[str, Any]) -> SecretRef:
    place = given.get("env") or given["file"].rsplit("/", 1)[-1]
    return SecretRef(
        id=given.get("id") or re.sub(r"[^A-Za-z0-9._-]", "_", place)[:63],
        env=given.get("env", ""),
        file=given.get("file", ""),
        optional=given.get("optional", False),
        retire_by=given.get("retire_by"),
    )


class ReplayStoreRef(NamedTuple):
    """Where `replay:` remembers deliveries; without an address, in the process's own memory."""

    address: StoreAddress | None
    password: SecretRef | None


PROCESS_MEMORY = ReplayStoreRef(None, None)


_USER = r"""[!"$-.0-9;->A-~]+"""  # any visible ASCII character but # / : ? @
_PLACE = f"{HOST}(?::{PORT})?(?:/[0-9]{{0,4}})?"
_EXAMPLE = "for example redis://127.0.0.1:6379/0, rediss:// for TLS, or unix:/run/redis.sock"


class _StoreURL(ValueType[StoreAddress]):
    """`redis://host:6379/0`, also with a user before the host. The password is never in the URL."""

    title = "URL"
    grammar = Grammar(f"rediss?://(?:{_USER}@)?{_PLACE}|{SOCKET}")
    _parts = f"(rediss?)://(?:({_USER})@)?({HOST})(?::({PORT}))?(?:/([0-9]{{0,4}}))?"

    def read(self, value: Any) -> StoreAddress:
        match = self.grammar.match(value)
        if match is None:
            raise InvalidValueError(self._explain(str(value)))
        if match[1]:
            return StoreAddress(False, "", 0, match[1], 0, "")
        parts = re.fullmatch(self._parts, match[0])
        assert parts is not None
        scheme, user, host, port, database = parts.groups()
        return StoreAddress(
            scheme == "rediss", without_brackets(host), int(port or 6379), "", int(database or 0), user or ""
        )

    @staticmethod
    def _explain(text: str) -> str:
        if re.match("rediss?://[^@/]*:[^@/]*@", text):
            return (
                "holds the password itself; move it out of the file: {url: redis://host:6379/0, password: {env: NAME}}"
            )
        if text.startswith("unix:/"):
            return explain_socket(text, "unix:/run/redis.sock")
        shown = "this URL" if "@" in text else quote(text)  # a password may be before the @
        if re.match(f"rediss?://(?:{_USER}@)?{HOST}(?::{PORT})?/[^?#]*$", text):
            return f"{shown} does not end in the number of a database; use a store, {_EXAMPLE}"
        return f"{shown} is not a valid store; use memory, or {_EXAMPLE}"

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class ReplayStore(ValueType[ReplayStoreRef]):
    """`memory`, `redis://host:6379/0`, or `{url, password}`."""

    title = "store"
    grammar = Grammar(f"memory|rediss?://{_PLACE}|{SOCKET}")
    section = Section(
        None,
        {
            "url": Key(_StoreURL(), "where it is; rediss:// for TLS", ["rediss://redis.example:6379/0"], required=True),
            "password": Key(SecretReference(), "the password of the user in the URL"),
        },
        make=lambda given: ReplayStoreRef(given["url"], given.get("password")),
    )

    def read(self, value: Any) -> ReplayStoreRef:
        if isinstance(value, Mapping):
            return self.section.read(value)
        if value == "memory":
            return PROCESS_MEMORY
        address = _StoreURL().read(value)
        if address.username:
            raise InvalidValueError(
                "has a user but no password; use {url: redis://user@host:6379/0, password: {env: NAME}}"
            )
        return ReplayStoreRef(address, None)

    def write(self, value: ReplayStoreRef) -> str:
        return str(value.address or "memory")

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [self.grammar.json_schema(), self.section.json_schema()]}
