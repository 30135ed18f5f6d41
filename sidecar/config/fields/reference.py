"""References to secrets, and to the replay store."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sidecar.config.fields.address import HOST, PORT, SOCKET, explain_socket, without_brackets
from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import Key, Section
from sidecar.config.fields.number import Day
from sidecar.config.fields.text import Flag, Label, NonEmpty
from sidecar.replay.store import StoreAddress, StoreKind
from sidecar.secret import SecretRef

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
                    "the id in logs and metrics; default: derived from the name of the variable or file",
                    ["current"],
                ),
                "env": Key(NonEmpty(), "the environment variable with the secret", ["ACME_SECRET"]),
                "file": Key(
                    NonEmpty(),
                    "instead of env: the file with the secret; one trailing newline is not part of it",
                    ["/run/secrets/acme"],
                ),
                "optional": Key(Flag(), "true: the variable or file may be absent", default=False),
                "retire_by": Key(
                    Day(),
                    "the last day on which the secret should be used; later use raises an alert but is not rejected",
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
        return given, of_keys or mistakes  # a wrong key is a better hint than the missing right one

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
    sentinel_password: SecretRef | None = None


PROCESS_MEMORY = ReplayStoreRef(None, None)


_USER = r"""[!"$-.0-9;->A-~]+"""  # any visible ASCII character but # / : ? @
_DATABASE = "(?:/[0-9]{0,4})?"
_PLACES = f"{HOST}(?::{PORT})?(?:,{HOST}(?::{PORT})?){{0,15}}"
_SERVICE = "/[A-Za-z0-9._-]{1,63}"
#: For each kind of store its scheme, and the form of the rest after the user.
_AFTER_USER = {
    StoreKind.SERVER: (r"rediss?", f"{HOST}(?::{PORT})?{_DATABASE}"),
    StoreKind.CLUSTER: (r"rediss?\+cluster", f"{_PLACES}/?"),
    StoreKind.SENTINEL: (r"rediss?\+sentinel", f"{_PLACES}{_SERVICE}{_DATABASE}"),
}
_PORTS = {StoreKind.SENTINEL: 26379}
_EXAMPLE = (
    "for example redis://127.0.0.1:6379/0, rediss:// for TLS, redis+cluster://host1,host2, "
    "redis+sentinel://host1,host2/mymaster, or unix:/run/redis.sock"
)
_ONE_PLACE = re.compile(f"({HOST})(?::({PORT}))?")


def _store_grammar(user: str) -> str:
    return "|".join(f"{scheme}://{user}{after}" for scheme, after in _AFTER_USER.values())


class _StoreURL(ValueType[StoreAddress]):
    """`redis://host:6379/0`, also with a user before the host. The password is never in the URL."""

    title = "URL"
    grammar = Grammar(f"{_store_grammar(f'(?:{_USER}@)?')}|{SOCKET}")

    def read(self, value: Any) -> StoreAddress:
        match = self.grammar.match(value)
        if match is None:
            raise InvalidValueError(self._explain(str(value)))
        if match[1]:
            return StoreAddress(False, (), match[1], 0, "")
        scheme, _, rest = match[0].partition("://")
        before, at, after = rest.rpartition("@")
        hosts, *path = after.split("/")
        kind = StoreKind(scheme.replace("rediss", "redis"))
        service = path.pop(0) if kind is StoreKind.SENTINEL else ""
        return StoreAddress(
            tls=scheme.startswith("rediss"),
            hosts=tuple(
                (without_brackets(host), int(port or _PORTS.get(kind, 6379)))
                for host, port in (_split_place(place) for place in hosts.split(","))
            ),
            path="",
            database=int(path[0] or 0) if path else 0,
            username=before if at else "",
            kind=kind,
            service=service,
        )

    @staticmethod
    def _explain(text: str) -> str:
        if re.match(r"rediss?(?:\+\w+)?://[^@/]*:[^@/]*@", text):
            return (
                "holds the password itself; move it out of the file: {url: redis://host:6379/0, password: {env: NAME}}"
            )
        if text.startswith("unix:/"):
            return explain_socket(text, "unix:/run/redis.sock")
        shown = "this URL" if "@" in text else quote(text)  # a password may be before the @
        if re.match(f"rediss?://(?:{_USER}@)?{HOST}(?::{PORT})?/[^?#]*$", text):
            return f"{shown} does not end in the number of a database; use a store, {_EXAMPLE}"
        if re.match(rf"rediss?\+cluster://(?:{_USER}@)?{_PLACES}/", text):
            return f"{shown} names a database, and a cluster has only one; remove what follows the addresses"
        if re.match(rf"rediss?\+sentinel://(?:{_USER}@)?{_PLACES}/?$", text):
            return f"{shown} does not say what the sentinels call the primary; add it, for example /mymaster"
        if re.match(f"rediss?://(?:{_USER}@)?{_PLACES}(?:/|$)", text):
            return f"{shown} has several addresses; write redis+cluster:// for a cluster, or redis+sentinel:// for sentinels"
        return f"{shown} is not a valid store; use memory, or {_EXAMPLE}"

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


def _split_place(place: str) -> tuple[str, str]:
    match = _ONE_PLACE.fullmatch(place)
    assert match is not None
    return match[1], match[2] or ""


def _make_store(given: dict[str, Any]) -> ReplayStoreRef:
    return ReplayStoreRef(given["url"], given.get("password"), given.get("sentinel_password"))


class ReplayStore(ValueType[ReplayStoreRef]):
    """`memory`, `redis://host:6379/0`, or `{url, password}`."""

    title = "store"
    grammar = Grammar(f"memory|{_store_grammar('')}|{SOCKET}")
    section = Section(
        None,
        {
            "url": Key(
                _StoreURL(),
                "the URL of the store; rediss:// for TLS, redis+cluster:// for a cluster, redis+sentinel:// for "
                "sentinels",
                ["rediss://redis.example:6379/0", "redis+sentinel://s1.example:26379,s2.example:26379/mymaster"],
                required=True,
            ),
            "password": Key(SecretReference(), "the password of the user in the URL"),
            "sentinel_password": Key(SecretReference(), "the password of the sentinels, if they require one"),
        },
        make=_make_store,
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
