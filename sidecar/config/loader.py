"""From a YAML file to a frozen `Config`, or to every mistake at once, each with file, line, path and remedy.

(1) yaml_source.py   text → plain values and their lines
(2) schema.py        every key known, every value of its kind
(3) here             what only the whole can tell: routes that overlap, verify nothing, lack a secret; ports taken twice
(4) here             secrets are resolved; from now on they are `Secret`, and only signature.py looks inside
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from marshmallow import Schema, ValidationError

from sidecar.config.fields.reference import ReplayStoreRef
from sidecar.config.files import ReadFile, read_file
from sidecar.config.keys import ConfigKeys, LimitsKeys, LogKeys, RejectKeys, RouteKeys, RouteMode, TimeoutsKeys
from sidecar.config.problems import ConfigError, Path, Problem, format_path
from sidecar.config.ranges import load_ranges
from sidecar.config.secrets import SecretRef, SecretUnavailableError, read_secret
from sidecar.config.settings import Account, Config, Limits, RangesSettings
from sidecar.config.yaml_source import MAX_BYTES, YamlSource, read_yaml, report_messages
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import Timeouts, UpstreamAddress
from sidecar.replay.store import Replay
from sidecar.routing.client_ip import ClientHeader
from sidecar.routing.networks import IPNetwork, Networks
from sidecar.routing.routes import RejectionResponse, Route, RouteTable, find_overlaps
from sidecar.secret import Secret
from sidecar.telemetry.log import LogSettings
from sidecar.telemetry.trace_context import TracingSettings
from sidecar.verify.handshake import HandshakeMode, Handshakes
from sidecar.verify.keys import KeyFormError, key_problem
from sidecar.verify.scheme import Scheme
from sidecar.verify.standard_webhooks import UpstreamSigner, signing_key
from sidecar.verify.template import BODY
from sidecar.verify.verifier import MAX_SECRETS, Verifier

#: Shorter secrets are guessed, not broken: below 16 bytes we warn.
SHORT_SECRET = 16


def load_config(
    file: str,
    env: Mapping[str, str],
    *,
    resolve_secrets: bool = True,
    read: ReadFile = read_file,
    ranges: Mapping[str, Networks] = MappingProxyType({}),
) -> Config:
    """Reads and checks `file`. Raises `ConfigError` with every mistake. `ranges` are used in place of the package's, by preset.

    With `resolve_secrets=False` no variable or secret file is read, for a check where the secrets are not at hand; the
    result then verifies nothing real and must not be served.
    """
    try:
        text = read(file, MAX_BYTES + 1)  # more is an error there
    except OSError as error:
        raise ConfigError([Problem(file, 1, "", f"can't be read: {error.strerror}")]) from None
    source = read_yaml(text, file)
    if source.problems:
        raise ConfigError(source.problems)
    if not isinstance(source.value, dict):
        raise ConfigError([Problem(file, 1, "", "holds no configuration; begin with upstream: and routes:")])
    return _Builder(source, env, resolve_secrets, read, ranges).build()


class _Builder:
    """Steps (2) to (4). Goes on after a mistake as far as that makes sense, to report all of them."""

    def __init__(
        self,
        source: YamlSource,
        env: Mapping[str, str],
        resolve_secrets: bool,
        read: ReadFile,
        fetched: Mapping[str, Networks],
    ) -> None:
        self.source = source
        self.env = env
        self.resolve_secrets = resolve_secrets
        self.read = read
        self.fetched = fetched
        self.ranges: dict[str, Networks] = {}  #: published networks that are used, by preset
        self.warnings: list[Problem] = []

    def build(self) -> Config:
        # (2): kinds. What is not of its kind is left out of `data`; the rest is looked at all the same.
        try:
            data = ConfigKeys().load(self.source.value)
        except ValidationError as error:
            report_messages(self.source, error.messages, ())
            data = self._readable()
        # (3) and (4)
        limits = Limits(**(LimitsKeys().load({}) | data.get("limits", {})))
        routes = self._routes(data, limits)
        self._check_listeners(data)
        self._check_proxies()
        store: ReplayStoreRef = data.get("replay_store", ReplayStoreRef(None, None))
        password = self._secret(("replay_store", "password"), store.password) if store.password is not None else None
        if (
            data.get("workers", 1) > 1
            and any(route.replay is not None for route in routes)
            and store.address is None
            and self.source.value.get("replay_store", "memory") == "memory"
        ):
            self.source.problem(
                ("workers",),
                "would each remember deliveries by itself, and a copy may reach another one; "
                "with replay: use replay_store: redis://host:6379/0, or workers: 1",
            )
        accounts = self._accounts(data)
        token: SecretRef | None = data.get("admin_token")
        admin_token = self._secret(("admin_token",), token) if token is not None else None
        if self.source.problems:
            raise ConfigError(self.source.problems)
        trusted = data.get("trusted_proxies", [])
        return Config(
            file=self.source.file,
            listen=data["listen"],
            admin=data["admin"],
            admin_token=admin_token,
            trusted_proxies=Networks(network for network in trusted if network != "unix:"),
            trust_unix="unix:" in trusted,
            client_header=ClientHeader(data["client_ip_header"]),
            proxy_protocol=data["proxy_protocol"],
            ip_ranges=RangesSettings(**data.get("ip_ranges", {})),
            ranges=self.ranges,
            limits=limits,
            timeouts=Timeouts(**(TimeoutsKeys().load({}) | data.get("timeouts", {}))),
            drain=data["drain"],
            replay_store=store.address,
            replay_password=password,
            log=LogSettings(**(LogKeys().load({}) | data.get("log", {}))),
            tracing=self._tracing(data.get("tracing", {})),
            workers=data["workers"],
            routes=RouteTable(routes),
            accounts=accounts,
            warnings=tuple(self.warnings),
        )

    def _readable(self) -> dict[str, Any]:
        """What is right in a configuration with mistakes, at its own index, so that the rest is checked all the same."""
        raw = self.source.value
        data = _valid(ConfigKeys(exclude=["routes"]), raw)
        listed = raw.get("routes")
        data["routes"] = [_valid(RouteKeys(), item) for item in listed] if isinstance(listed, list) else []
        return data

    def _warn(self, path: Path, message: str) -> None:
        self.warnings.append(Problem(self.source.file, self.source.line_of(path), format_path(path), message))

    def _routes(self, data: Mapping[str, Any], limits: Limits) -> list[Route]:
        """Every route that is whole enough to look at, with the mistakes between them reported."""
        routes: list[Route] = []
        places: list[int] = []
        for index, item in enumerate(data["routes"]):
            route = self._route(("routes", index), item, data, limits)
            if route is not None:
                routes.append(route)
                places.append(index)
        for first, second in find_overlaps(routes):
            self.source.problem(
                ("routes", places[second], "path"),
                f"'{routes[second].pattern}' overlaps '{routes[first].pattern}' of routes[{places[first]}]; "
                "each path must belong to one route, because receivers read paths more loosely than routes do",
            )
        for name, count in Counter(route.name for route in routes).items():
            if count > 1:
                again = [place for place, route in zip(places, routes, strict=True) if route.name == name]
                where = ("routes", again[-1], "name")
                self.source.problem(where, f"{name!r} is the name of {count} routes; give each its own name:")
        return routes

    def _route(self, at: Path, item: Mapping[str, Any], data: Mapping[str, Any], limits: Limits) -> Route | None:
        raw = self._raw(at)
        upstream: UpstreamAddress | None = item.get("upstream", data.get("upstream"))
        if upstream is None and "upstream" not in raw and "upstream" not in self.source.value:
            self.source.problem(
                at, "has no upstream; set upstream: for all routes or for this one, for example http://127.0.0.1:3000"
            )
        self._check_purpose(at, item, raw)
        scheme: Scheme | None = item.get("verify")
        secrets = self._secrets((*at, "secrets"), item.get("secrets", []), scheme)
        public_url: str = item.get("public_url", data.get("public_url", ""))
        if (
            scheme is not None
            and scheme.needs_url
            and not public_url
            and not {"public_url"} & {*raw, *self.source.value}
        ):
            self.source.problem(
                (*at, "verify"),
                "signs the URL that senders call, and no public_url says it; add public_url: https://your.host here or above",
            )
        path: str | None = item.get("path")
        if path is None:
            return None
        reject = RejectKeys().load({}) | item.get("reject", {})
        return Route(
            name=item.get("name") or _name_from_path(path),
            path=path.removesuffix("*").encode(),
            prefix=path.endswith("/*"),
            methods=frozenset(item.get("methods") or (["GET", "HEAD", "POST"] if item.get("open") else ["POST"])),
            upstream=upstream or UpstreamAddress("http", "", 0, ""),  # reported above; the route lives on to be checked
            body_limit=item.get("limits", {}).get("body", limits.body),
            rejection=RejectionResponse(reject["status"], reject["body"].encode()),
            verifier=self._verifier(scheme, secrets, public_url) if scheme is not None and secrets else None,
            preset=scheme.name if scheme is not None else "",
            open=item.get("open", False),
            allow=self._allow((*at, "allow"), item["allow"], data) if "allow" in item else None,
            shadow=item.get("mode") is RouteMode.SHADOW,
            replay=self._replay(at, item, scheme, data),
            upstream_signer=self._upstream_signer((*at, "sign", "secret"), item.get("sign", {}).get("secret")),
            handshakes=self._handshakes(at, item, scheme, secrets, f"{public_url.rstrip('/')}{path.removesuffix('*')}"),
        )

    def _tracing(self, item: Mapping[str, Any]) -> TracingSettings | None:
        if "endpoint" not in item:
            return None
        if self.resolve_secrets and find_spec("opentelemetry") is None:
            self.source.problem(
                ("tracing",), "needs packages that are not installed; pip install 'webhook-sidecar[otel]', or remove it"
            )
        return TracingSettings(item["endpoint"], item["sample"])

    def _allow(self, at: Path, listed: list[IPNetwork | str], data: Mapping[str, Any]) -> Networks:
        """The networks listed, and of the presets among them the published ones, shared by all routes that name them."""
        named: dict[str, Networks] = {}
        for index, entry in enumerate(listed):
            if not isinstance(entry, str):
                continue
            name = entry.removeprefix("preset:")
            if name not in self.ranges:
                snapshot = load_ranges(name)
                self.ranges[name] = self.fetched.get(name, snapshot.networks)
                if "refresh" not in data.get("ip_ranges", {}):
                    day = datetime.fromtimestamp(snapshot.date, UTC).date()
                    self._warn((*at, index), f"the list of {day} is used; ip_ranges: {{refresh: 24h}} keeps it current")
            named[entry] = self.ranges[name]
        return Networks((entry for entry in listed if not isinstance(entry, str)), named)

    def _replay(
        self, at: Path, item: Mapping[str, Any], scheme: Scheme | None, data: Mapping[str, Any]
    ) -> Replay | None:
        """The route's replay protection, which needs something signed to know a delivery by."""
        seconds: float | None = item.get("replay")
        if seconds is None:
            if "replay_fail_open" in item and "replay" not in self._raw(at):
                self.source.problem(
                    (*at, "replay_fail_open"), "has no meaning without replay:; remove it, or add replay: 10m"
                )
            return None
        if scheme is None or scheme.signature.kind.bearer:
            if "verify" not in self._raw(at) or "verify" in item:
                self.source.problem(
                    (*at, "replay"),
                    "needs a signature: nothing else tells a delivery sent again from another one like it; remove it",
                )
            return None
        tolerance = scheme.timestamp.tolerance if scheme.timestamp is not None else None
        if tolerance is not None and seconds < 2 * tolerance:
            # No error: it still stops what a provider sends twice, and to refuse to start would lose every delivery.
            self._warn(
                (*at, "replay"),
                f"forgets a delivery after {seconds:g} s, but its signature may be good for {2 * tolerance:g} s, the timestamp's "
                f"tolerance both ways; to refuse every recording, use {2 * tolerance:g}s or more",
            )
        if not scheme.binds_body:
            self._warn(
                (*at, "replay"),
                f"takes two deliveries for one if they have the same {scheme.signed}, because the provider signs nothing else",
            )
        return Replay(seconds, item.get("replay_fail_open", data.get("replay_fail_open", False)))

    def _upstream_signer(self, at: Path, refs: list[SecretRef] | None) -> UpstreamSigner | None:
        """`sign:` with the secrets that can be had: one at least, or it is a mistake."""
        if not refs:
            return None
        if all(ref.optional for ref in refs):
            self.source.problem(
                at, "is optional, and without it nothing would be signed; remove optional: of one that is always there"
            )
        keys = []
        listed = isinstance(self._raw(at[:2])["sign"]["secret"], list)
        for index, ref in enumerate(refs):
            here = (*at, index) if listed else at
            secret = self._secret(here, ref)
            try:
                if secret is not None:
                    keys.append(signing_key(secret) if self.resolve_secrets else b"")
            except KeyFormError:
                self.source.problem(
                    here,
                    f"the secret in {ref.where} is not base64, with or without 'whsec_' before it; "
                    'make one: echo "whsec_$(openssl rand -base64 32)"',
                )
        return UpstreamSigner(keys) if keys else None

    def _handshakes(
        self, at: Path, item: Mapping[str, Any], scheme: Scheme | None, secrets: list[Secret], url: str
    ) -> Handshakes | None:
        """The provider's handshakes, if it has any and there is what they are answered with."""
        shapes = scheme.handshake if scheme is not None else ()
        ref: SecretRef | None = item.get("verify_token")
        token = self._secret((*at, "verify_token"), ref) if ref is not None else None
        mode: HandshakeMode | None = item.get("handshake")
        wants_token = any(shape.needs_token for shape in shapes)
        if ref is not None and not wants_token:
            self.source.problem(
                (*at, "verify_token"), "is compared with nothing: the scheme has no handshake with a token"
            )
        if "handshake" in self._raw(at) and "handshake" in item and not shapes:
            self.source.problem((*at, "handshake"), "has no meaning: the scheme has no handshake; remove it")
        if not shapes:
            return None
        if mode is not HandshakeMode.PASS and wants_token and ref is None:
            self._warn(
                at,
                "can't answer the provider's handshake without verify_token: {env: NAME}; or let the receiver: handshake: pass",
            )
        if mode is not HandshakeMode.PASS and any(shape.needs_url for shape in shapes) and not url.startswith("http"):
            self._warn(at, "can't answer the provider's handshake without public_url, which its answer holds")
            url = ""
        made = Handshakes(
            shapes,
            mode,
            secret=secrets[0] if secrets else None,
            token=token,
            url=url,
            signs_body_alone=scheme is not None and scheme.parts == (BODY,),
        )
        return made if made.signed or made.unsigned else None

    def _check_purpose(self, at: Path, item: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
        """A route verifies something, or says plainly that it does not."""
        if item.get("open"):
            for key in ("verify", "secrets", "mode", "sign", "reject"):
                if key in raw and not (key == "reject" and "allow" in raw):
                    self.source.problem(
                        (*at, key), "has no meaning on a route that is open: true; remove one of the two"
                    )
        elif "verify" not in raw:
            self.source.problem(
                at,
                "verifies nothing; add verify: with a preset or a scheme, or open: true if everything may pass unverified",
            )
        elif "verify" in item and item["verify"] is None:
            if "allow" not in raw:
                self.source.problem(
                    (*at, "verify"), "none lets everybody in; add allow: with the networks that may send"
                )
            if "secrets" in raw:
                self.source.problem(
                    (*at, "secrets"), "are not used with verify: none; remove them, or name the scheme they belong to"
                )
        elif "secrets" not in raw:
            self.source.problem(at, "has no secrets; add secrets: [{env: NAME}] or [{file: /path}]")

    def _verifier(self, scheme: Scheme, secrets: list[Secret], public_url: str) -> Verifier | None:
        if scheme.needs_url and not public_url:
            return None  # reported
        return Verifier(scheme, secrets, public_url, resolved=self.resolve_secrets)

    def _secrets(self, at: Path, refs: list[SecretRef], scheme: Scheme | None) -> list[Secret]:
        """The secrets that can be had and are in the scheme's form; missing ones are mistakes unless optional."""
        secrets = []
        wrong = False
        for index, ref in enumerate(refs):
            if (secret := self._secret((*at, index), ref)) is None:
                continue
            problem = key_problem(scheme, secret) if scheme is not None and self.resolve_secrets else ""
            if problem:
                self.source.problem((*at, index), f"the secret in {ref.where} {problem}")
                wrong = True
                continue
            secrets.append(secret)
        if len(refs) > MAX_SECRETS:
            self.source.problem(
                at, f"are {len(refs)}; {MAX_SECRETS} is the most, so remove those that are no longer used"
            )
        for ident, count in Counter(ref.id for ref in refs).items():
            if count > 1:
                self.source.problem(
                    at,
                    f"{ident!r} is the id of {count} secrets; the id says which one matched, so give each its own id:",
                )
        if refs and not secrets and not wrong and all(ref.optional for ref in refs):
            self.source.problem(
                at, "are all optional and all absent, so nothing could be verified; provide one of them"
            )
        return secrets

    def _secret(self, at: Path, ref: SecretRef) -> Secret | None:
        if not self.resolve_secrets:
            return Secret(ref.id, b"not resolved", retire_by=ref.retire_by)
        try:
            value = read_secret(ref, self.env, self.read)
        except SecretUnavailableError as error:
            if not (ref.optional and error.absent):
                self.source.problem(at, str(error))
            return None
        return self._checked(at, ref, value)

    def _checked(self, at: Path, ref: SecretRef, value: bytes) -> Secret | None:
        if not value.strip():
            self.source.problem(at, f"the secret in {ref.where} is empty; anybody could sign with it")
            return None
        if value != value.strip():
            self._warn(
                at, f"the secret in {ref.where} begins or ends with blanks or newlines; they count as part of it"
            )
        if len(value) < SHORT_SECRET:
            self._warn(
                at, f"the secret in {ref.where} has only {len(value)} bytes; {SHORT_SECRET} or more can't be guessed"
            )
        return Secret(ref.id, value, retire_by=ref.retire_by)

    def _check_listeners(self, data: Mapping[str, Any]) -> None:
        listen, admin = data.get("listen"), data.get("admin")
        if listen and admin and _collide(listen, admin):
            self.source.problem(("admin",), f"{admin} is taken by the data listener ({listen}); give each its own port")
        upstreams: list[tuple[Path, UpstreamAddress | None]] = [(("upstream",), data.get("upstream"))]
        upstreams += [
            (("routes", index, "upstream"), item.get("upstream")) for index, item in enumerate(data["routes"])
        ]
        for at, upstream in upstreams:
            for listener in (listen, admin):
                if upstream and listener and _is_ourselves(upstream, listener):
                    self.source.problem(
                        at, f"{upstream} is this sidecar's own listener ({listener}); name the receiver's address"
                    )

    def _check_proxies(self) -> None:
        for key in ("client_ip_header", "proxy_protocol"):
            if self.source.value.get(key) and "trusted_proxies" not in self.source.value:
                self.source.problem(
                    (key,), "is believed of trusted proxies only; name them: trusted_proxies: [their networks]"
                )

    def _accounts(self, data: Mapping[str, Any]) -> tuple[Account, ...]:
        accounts = []
        for index, item in enumerate(data.get("delivery_test", {}).get("accounts", [])):
            key = self._secret(("delivery_test", "accounts", index, "api_key"), item["api_key"])
            if key is not None:
                accounts.append(Account(item["id"], key, item.get("webhook_url", "")))
        return tuple(accounts)

    def _raw(self, path: Path) -> Mapping[str, Any]:
        """The mapping at `path` as it was written, mistakes and all."""
        value = self.source.value
        for step in path:
            value = value[step]
        return value if isinstance(value, Mapping) else {}


def _valid(schema: Schema, raw: Any) -> dict[str, Any]:
    """The keys of `raw` that are right by themselves."""
    try:
        return dict(schema.load(raw))
    except ValidationError as error:
        wrong = error.messages if isinstance(error.messages, dict) else {}
        valid = error.valid_data if isinstance(error.valid_data, dict) else {}
        return {key: value for key, value in valid.items() if key not in wrong}


def _name_from_path(path: str) -> str:
    """`/webhooks/acme` → `webhooks-acme`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-._")[:63]
    return name or "root"


def _collide(one: ListenAddress, other: ListenAddress) -> bool:
    if one.path or other.path:
        return one.path == other.path
    wildcard = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    same_host = one.host == other.host or bool({one.host, other.host} & wildcard)
    return one.port != 0 and one.port == other.port and same_host


def _is_ourselves(upstream: UpstreamAddress, listener: ListenAddress) -> bool:
    if upstream.path or listener.path:
        return upstream.path == listener.path
    loopback = {"localhost", "127.0.0.1", "::1"}
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    same_host = upstream.host == listener.host or (upstream.host in loopback and listener.host in loopback | everywhere)
    return upstream.port == listener.port and same_host
