"""From a YAML file to a frozen `Config`, or to every mistake at once, each with file, line, path and remedy.

(1) yaml_source.py   text → plain values and their lines
(2) keys.py          every key is known, every value is valid
(3) checks.py        several settings together are consistent
(4) secrets.py       secrets are resolved; from here on they are `Secret`
(5) here             routes and everything else are made of them
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from types import MappingProxyType

from sidecar.config.checks import (
    check_limits,
    check_listeners,
    check_names,
    check_open_hosts,
    check_overlaps,
    check_proxies,
    check_route,
    check_timeouts,
    check_workers,
)
from sidecar.config.combination import Combination
from sidecar.config.extras import missing_extra
from sidecar.config.files import ReadFile, read_file
from sidecar.config.key_clients import load_key_clients
from sidecar.config.keys import CONFIG
from sidecar.config.machine import check_machine, this_machine
from sidecar.config.places import add_places
from sidecar.config.problems import ConfigError, Path, Problem, Report
from sidecar.config.ranges import load_ranges
from sidecar.config.repeat_checks import can_replay, check_resend, check_store, fails_open, resend_response
from sidecar.config.route_keys import ROUTE
from sidecar.config.secrets import SecretResolver
from sidecar.config.settings import Account, Config, FileSettings, RejectSettings, ReplayBy, RouteMode, RouteSettings
from sidecar.config.tenant_files import PLACE
from sidecar.config.tenants import TenantLoader
from sidecar.config.upstream_tls import TlsLoader
from sidecar.config.yaml_source import MAX_YAML_BYTES, read_yaml
from sidecar.http1.upstream import UpstreamAddress, UpstreamSettings
from sidecar.outcomes import DEFAULT_REJECTION, RejectionResponse
from sidecar.replay.store import Replay
from sidecar.routing.client_ip import ClientHeader
from sidecar.routing.networks import IPNetwork, Networks
from sidecar.routing.receiver_headers import ReceiverHeaders, SetHeader
from sidecar.routing.routes import Route, RouteTable
from sidecar.secret import Secret, SecretRef
from sidecar.verify.composite import Composite, name_schemes
from sidecar.verify.handshake import HandshakeMode, Handshakes
from sidecar.verify.keys import KeyFormError, key_problem
from sidecar.verify.published import PublishedKeys
from sidecar.verify.route_handshakes import list_shapes, make_handshakes
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import SigningError
from sidecar.verify.standard_webhooks import StandardSigner, UpstreamSigner, signing_key
from sidecar.verify.tenants import decoy_secrets
from sidecar.verify.upstream_signer import SchemeSigner, scheme_problem
from sidecar.verify.verifier import Verifier

#: The upstream of a route whose own has a mistake, so that the rest of the route is still checked.
_NO_UPSTREAM = UpstreamAddress("http", "", 0, "")


def load_config(
    file: str,
    env: Mapping[str, str],
    *,
    resolve_secrets: bool = True,
    read: ReadFile = read_file,
    ranges: Mapping[str, Networks] = MappingProxyType({}),
    published: PublishedKeys | None = None,
) -> Config:
    """Reads and checks `file`. Raises `ConfigError` with every mistake.

    `ranges` replace the package's lists, by preset, and `published` has the keys that providers publish. With
    `resolve_secrets=False` no variable or secret file is read, for a check where the secrets are not available. The result
    then verifies nothing real and must not be served.
    """
    try:
        text = read(file, MAX_YAML_BYTES + 1)  # more is an error there
    except OSError as error:
        message = f"can't be read: {error.strerror}; check its path and permissions"
        raise ConfigError([Problem(file, 1, "", message)]) from None
    source = read_yaml(text, file)
    if source.problems:
        raise ConfigError(source.problems)
    if not isinstance(source.value, dict):
        raise ConfigError([Problem(file, 1, "", "contains no configuration; begin with `upstream:` and `routes:`")])
    if "apiVersion" in source.value:
        raise ConfigError([Problem(file, 1, "", "is a Kubernetes object; use `sidecar check --manifests FILE` for it")])
    report = Report(source)
    settings = _read_settings(source.value, report)
    secrets = SecretResolver(env, read, report, resolves=resolve_secrets)
    tls = TlsLoader(read, report, resolves=resolve_secrets)
    tenants = TenantLoader(report, resolves=resolve_secrets)
    return _Builder(settings, report, secrets, tls, tenants, ranges, published).build(file)


def _read_settings(value: dict[str, object], report: Report) -> FileSettings:
    """The settings, without those that have mistakes, so that the others are checked all the same."""
    settings, mistakes = CONFIG.read_valid(value)
    report.add_all(add_places(mistakes))
    listed = value.get("routes")
    if mistakes and isinstance(listed, list):
        settings = replace(settings, routes=tuple(ROUTE.read_valid(item)[0] for item in listed))
    return settings


@dataclass(slots=True)
class _Builder:
    """Steps (3) to (5). They continue after a mistake as far as possible, to report all of them."""

    settings: FileSettings
    report: Report
    secrets: SecretResolver
    tls: TlsLoader
    tenants: TenantLoader
    fetched: Mapping[str, Networks]
    published: PublishedKeys | None
    ranges: dict[str, Networks] = field(default_factory=dict)  #: the published networks that are used, by preset

    def build(self, file: str) -> Config:
        settings, report = self.settings, self.report
        check_listeners(settings, report)
        check_limits(settings, report)
        check_proxies(settings, report)
        check_timeouts(settings, report)
        check_workers(settings, report)
        check_store(settings, report)
        if self.secrets.resolves:  # otherwise it will run elsewhere
            check_machine(settings, this_machine(), report)
        routes = self._make_routes()
        self._check_tracing()
        store = settings.replay_store
        password = self._resolve(("replay_store", "password"), store.password)
        sentinel_password = self._resolve(("replay_store", "sentinel_password"), store.sentinel_password)
        admin_token = self._resolve(("admin_token",), settings.admin_token)
        accounts = self._make_accounts()
        clients = load_key_clients(settings, self.secrets, report, _route_name)
        authorities = self.tls.load_authorities(("keys", "ca"), settings.keys.ca)
        report.raise_if_wrong()
        trusted = settings.trusted_proxies
        return Config(
            **settings.common(),
            file=file,
            admin_token=admin_token,
            trusted_proxies=Networks(network for network in trusted if not isinstance(network, str)),
            trust_unix="unix:" in trusted,
            client_header=ClientHeader(settings.client_ip_header),
            ranges=self.ranges,
            replay_store=store.address,
            replay_password=password,
            sentinel_password=sentinel_password,
            routes=RouteTable(routes),
            accounts=accounts,
            tenant_directories=self.tenants.directories,
            key_authorities=authorities,
            key_clients=clients,
            warnings=tuple(report.warnings),
        )

    def _resolve(self, at: Path, ref: SecretRef | None) -> Secret | None:
        return self.secrets.resolve(at, ref) if ref is not None else None

    def _check_tracing(self) -> None:
        if self.settings.tracing is not None and self.secrets.resolves and find_spec("opentelemetry") is None:
            self.report.add(
                ("tracing",),
                "needs packages that are not installed; run pip install 'webhook-sidecar[otel]', or remove it",
            )

    def _make_accounts(self) -> tuple[Account, ...]:
        accounts = []
        for index, account in enumerate(self.settings.delivery_test):
            key = self._resolve(("delivery_test", "accounts", index, "api_key"), account.api_key)
            if key is not None:
                accounts.append(Account(account.id, key, account.webhook_url))
        return tuple(accounts)

    def _make_routes(self) -> list[Route]:
        routes: list[Route] = []
        places: list[int] = []
        for index, settings in enumerate(self.settings.routes):
            at: Path = ("routes", index)
            check_route(at, settings, self.settings, self.report)
            route = self._make_route(at, settings)
            if settings.path:
                routes.append(route)
                places.append(index)
        check_overlaps(routes, places, self.report)
        check_names(routes, places, self.report)
        check_open_hosts(routes, places, self.report)
        return routes

    def _make_route(self, at: Path, route: RouteSettings) -> Route:
        public_url = route.public_url or self.settings.public_url
        body_limit = route.limits.body or self.settings.limits.body
        tenants = self.tenants.load(at, route)
        verifier = self._make_verifier(at, route, public_url, body_limit, tenants=tenants is not None)
        rejection = _make_rejection(route)
        in_rotation = 0
        if verifier is not None and tenants is None:
            in_rotation = max(len(member.secrets) for member in verifier.members())
        check_resend(at, route, in_rotation, rejection.status, self.report)
        path = route.path.removesuffix("*")
        in_path = tenants is not None and PLACE in path
        segments = tuple(path.encode().split(b"/")) if in_path else ()
        path = path.partition(PLACE)[0] if in_path else path
        pool, host = self._make_pool(at, route)
        signer = self._make_signer((*at, "sign", "secret"), route)
        name = _route_name(route)
        return Route(
            name=name,
            path=path.encode(),
            prefix=route.path.endswith("/*"),
            hosts=tuple(dict.fromkeys(host.encode() for host in route.hosts)),
            methods=frozenset(route.methods or (("GET", "HEAD", "POST") if route.open else ("POST",))),
            upstream=pool.address,
            pool=pool,
            host=host,
            body_limit=body_limit,
            rejection=rejection,
            verifier=verifier,
            preset=_name_of(route),
            open=route.open,
            allow=self._make_allowlist((*at, "allow"), route.allow) if route.allow else None,
            shadow=route.mode is RouteMode.SHADOW,
            replay=self._make_replay(route),
            capture=route.capture,
            client_certificate=route.client_certificate,
            tenants=tenants,
            segments=segments,
            headers=self._make_headers((*at, "headers"), route, signer),
            upstream_signer=signer,
            handshakes=self._make_handshakes(at, route, verifier, f"{public_url.rstrip('/')}{path}"),
        )

    def _make_verifier(
        self, at: Path, route: RouteSettings, public_url: str, body_limit: int, *, tenants: bool
    ) -> Verifier | None:
        """The verifier of the route's scheme or schemes; None if there is none, or after a mistake."""
        if isinstance(route.verify, Combination):
            return self._make_composite(at, route, route.verify, public_url, body_limit)
        secrets = self._make_secrets((*at, "secrets"), route.secrets, route.scheme)
        if tenants and route.scheme is not None:
            # Secrets that nobody knows: a delivery of an unknown tenant is checked against them.
            secrets = list(decoy_secrets(route.scheme, os.urandom(64)))
        scheme = route.scheme
        if scheme is None or not (secrets or scheme.published) or (scheme.needs_url and not public_url):
            return None
        if missing_extra(scheme):
            return None
        return self._verify_with(scheme, secrets, public_url, body_limit, _route_name(route))

    def _verify_with(
        self, scheme: Scheme, secrets: Sequence[Secret], public_url: str, body_limit: int, keys_name: str
    ) -> Verifier:
        return Verifier(
            scheme,
            secrets,
            public_url,
            resolved=self.secrets.resolves,
            body_limit=body_limit,
            published=self.published,
            keys_name=keys_name,
        )

    def _make_composite(
        self, at: Path, route: RouteSettings, combination: Combination, public_url: str, body_limit: int
    ) -> Verifier | None:
        """A verifier for each scheme. The route's secrets serve those without their own, each where it is in the form."""
        shared = self._make_secrets((*at, "secrets"), route.secrets, None)
        sharing = [each.scheme for each in combination.members if not (each.secrets or each.scheme.published)]
        places = {ref.id: index for index, ref in enumerate(route.secrets)}
        for secret in shared if self.secrets.resolves else ():
            self._check_shared((*at, "secrets", places[secret.id]), secret, sharing)
        verifiers = []
        names = name_schemes(combination.schemes)
        for index, (name, member) in enumerate(zip(names, combination.members, strict=True)):
            here = (*at, "verify", combination.combine, index)
            if member.secrets:
                secrets = self._make_secrets((*here, "secrets"), member.secrets, member.scheme)
            elif self.secrets.resolves:
                secrets = [secret for secret in shared if not key_problem(member.scheme, secret)]
                if shared and not secrets and not member.scheme.published:
                    self.report.add(
                        here,
                        f"none of the route's secrets is in the form of {name}: the first one "
                        f"{key_problem(member.scheme, shared[0])}; give this entry its own `secrets`",
                    )
            else:
                secrets = shared
            usable = (public_url or not member.scheme.needs_url) and not missing_extra(member.scheme)
            if (secrets or member.scheme.published) and usable:
                verifiers.append(self._verify_with(member.scheme, secrets, public_url, body_limit, _route_name(route)))
        return Composite(combination.combine, verifiers) if len(verifiers) == len(combination.members) else None

    def _check_shared(self, at: Path, secret: Secret, schemes: Sequence[Scheme]) -> None:
        """Checks that a secret that several schemes share is in the form of at least one of them."""
        names = name_schemes(schemes)
        problems = {name: key_problem(scheme, secret) for name, scheme in zip(names, schemes, strict=True)}
        wrong = {name: problem for name, problem in problems.items() if problem}
        if not wrong:
            return
        fitting = ", ".join(name for name in names if name not in wrong)
        (first, problem), *_ = wrong.items()
        if not fitting:
            self.report.add(at, f"the secret {secret.id} {problem} ({first}); none of the schemes can use it")
            return
        self.report.warn(
            at,
            f"the secret {secret.id} serves {fitting} only: for {first} it {problem}; give each entry its own `secrets`",
        )

    def _make_pool(self, at: Path, route: RouteSettings) -> tuple[UpstreamSettings, bytes]:
        """How the route's receiver is connected to, and the Host that it gets."""
        common = self.settings.timeouts
        given = {key: value for key, value in asdict(route.timeouts).items() if value is not None}
        timeouts = replace(common, **given) if given else common
        upstream = route.upstream or self.settings.upstream
        if upstream is None:
            return UpstreamSettings(_NO_UPSTREAM, timeouts), b""
        above: Path = at if route.upstream is not None else ()
        tls = self.tls.load((*above, "upstream", "tls"), upstream.tls)
        return UpstreamSettings(upstream.url, timeouts, tls, upstream.connections), upstream.host.encode()

    def _make_secrets(self, at: Path, refs: tuple[SecretRef, ...], scheme: Scheme | None) -> list[Secret]:
        """The secrets that are available and in the scheme's form. Missing ones are mistakes unless optional."""
        secrets = []
        wrong = False
        for index, ref in enumerate(refs):
            secret = self._resolve((*at, index), ref)
            if secret is None:
                continue
            is_key = scheme is not None and not scheme.published
            problem = key_problem(scheme, secret) if scheme is not None and is_key and self.secrets.resolves else ""
            if problem:
                self.report.add((*at, index), f"the secret in {ref.where} {problem}")
                wrong = True
                continue
            secrets.append(secret)
        if refs and not secrets and not wrong and all(ref.optional for ref in refs):
            self.report.add(at, "are all optional and all absent, so nothing can be verified; provide one of them")
        return secrets

    def _make_allowlist(self, at: Path, listed: tuple[IPNetwork | str, ...]) -> Networks:
        """The listed networks and published lists. All routes that name a published list share it."""
        named: dict[str, Networks] = {}
        for index, entry in enumerate(listed):
            if not isinstance(entry, str):
                continue
            name = entry.removeprefix("preset:")
            if name not in self.ranges:
                snapshot = load_ranges(name)
                self.ranges[name] = self.fetched.get(name, snapshot.networks)
                if self.settings.ip_ranges.refresh is None and not self.report.is_wrong(("ip_ranges",)):
                    day = datetime.fromtimestamp(snapshot.date, UTC).date()
                    self.report.warn(
                        (*at, index), f"uses the list of {day}; add `ip_ranges: {{refresh: 24h}}` to keep it current"
                    )
            named[entry] = self.ranges[name]
        return Networks((entry for entry in listed if not isinstance(entry, str)), named)

    def _make_replay(self, route: RouteSettings) -> Replay | None:
        if route.replay is None or not can_replay(route):
            return None
        fail_open = fails_open(route, self.settings)
        by_id = route.replay.by is ReplayBy.DELIVERY_ID
        return Replay(route.replay.seconds, fail_open, by_id, route.replay.on_failure)

    def _make_headers(self, at: Path, route: RouteSettings, signer: UpstreamSigner | None) -> ReceiverHeaders | None:
        settings = route.headers
        if settings is None:
            return None
        made: list[SetHeader] = []
        for name, value in settings.set.items():
            here = (*at, "set", name)
            if signer is not None and name.lower().encode() in signer.replaces:
                self.report.add(here, "is written by `sign`; remove one of the two")
            if value.secret is None:
                made.append(SetHeader(name, value.text))
                continue
            secret = self._resolve(here, value.secret)
            if value.secret.optional:
                self.report.add(
                    here, "is optional, and without it the receiver would miss the header; remove `optional`"
                )
            elif secret is not None:
                made.append(SetHeader(name, value.text, secret))
                try:
                    ReceiverHeaders(made[-1:], ())
                except ValueError as error:
                    self.report.add(here, f"the secret in {value.secret.where} {error}")
                    made.pop()
        return ReceiverHeaders(made, settings.remove)

    def _make_signer(self, at: Path, route: RouteSettings) -> UpstreamSigner | None:
        """`sign:` with the secrets that are available; at least one of them must not be optional."""
        if route.sign is None:
            return None
        scheme = route.sign.scheme
        if all(ref.optional for ref in route.sign.secret):
            self.report.add(
                at,
                "is optional, and without it nothing would be signed; remove `optional` from one that is always present",
            )
        public_url = route.public_url or self.settings.public_url
        if scheme is not None and (problem := scheme_problem(scheme, len(route.sign.secret), public_url)):
            self.report.add((*at[:-1], "scheme"), f"{scheme.name or 'this scheme'} {problem}")
            return None
        secrets: list[Secret] = []
        listed = isinstance(self.report.value_at(at), list)
        for index, ref in enumerate(route.sign.secret):
            here = (*at, index) if listed else at
            secret = self._resolve(here, ref)
            if secret is None:
                continue
            if problem := self._signing_problem(scheme, secret):
                self.report.add(here, f"the secret in {ref.where} {problem}")
            else:
                secrets.append(secret)
        if not secrets:
            return None
        if scheme is None:
            return StandardSigner([signing_key(each) if self.secrets.resolves else b"" for each in secrets])
        try:
            return SchemeSigner(scheme, secrets, public_url, resolved=self.secrets.resolves)
        except SigningError as error:
            self.report.add((*at[:-1], "scheme"), f"{scheme.name or 'this scheme'} {error}")
        return None

    def _signing_problem(self, scheme: Scheme | None, secret: Secret) -> str:
        """The problem of a secret of `sign:`; empty if there is none."""
        if not self.secrets.resolves:
            return ""
        if scheme is not None:
            return key_problem(scheme, secret)
        try:
            signing_key(secret)
        except KeyFormError:
            return (
                "is not valid base64, with or without 'whsec_' before it; "
                'make one: echo "whsec_$(openssl rand -base64 32)"'
            )
        return ""

    def _make_handshakes(
        self, at: Path, route: RouteSettings, verifier: Verifier | None, url: str
    ) -> Handshakes | None:
        """The handshakes that can be responded to."""
        token = self._resolve((*at, "verify_token"), route.verify_token)
        if verifier is None:
            return None
        if not url.startswith("http"):
            shapes = list_shapes(verifier, route.added_handshakes)
            if route.handshake_mode is not HandshakeMode.PASS and any(shape.needs_url for shape, _ in shapes):
                self.report.warn(
                    at, "can't respond to the provider's handshake, which contains the URL; add `public_url`"
                )
            url = ""
        return make_handshakes(verifier, route.handshake_mode, token=token, url=url, added=route.added_handshakes)


def _route_name(route: RouteSettings) -> str:
    """The route in metrics and log, and the published keys of its custom schemes."""
    return route.name or _name_from_path(route.path)


def _name_of(route: RouteSettings) -> str:
    """The names of the route's presets, for people; empty for a custom scheme alone."""
    if isinstance(route.verify, Combination):
        return f" {route.verify.combine.word} ".join(name_schemes(route.schemes))
    return route.scheme.name if route.scheme is not None else ""


def _make_rejection(route: RouteSettings) -> RejectionResponse:
    """The route's own response; missing parts come from the preset's or the common one."""
    scheme, given = route.scheme, route.reject
    base = DEFAULT_REJECTION if scheme is None or scheme.reject is None else scheme.reject
    if given is None:
        return base
    if isinstance(given, RejectSettings):
        body = base.body if given.body is None else given.body.encode()
        return RejectionResponse(given.status or base.status, body)
    return resend_response(scheme)


def _name_from_path(path: str) -> str:
    """`/webhooks/acme` → `webhooks-acme`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-._")[:63]
    return name or "root"
