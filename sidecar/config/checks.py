"""Checks that need several settings: routes that overlap or verify nothing, ports that are used twice.

Each function checks one thing and reports it. Values that are already wrong are skipped, so that every message is
about one mistake.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from sidecar.config.combination import NO_SCHEME, Combination
from sidecar.config.extras import check_extra
from sidecar.config.presets import load_preset, preset_names
from sidecar.config.problems import Path, Report
from sidecar.config.repeat_checks import (
    can_replay,
    check_question,
    check_replay,
    check_unavailable,
    is_asked,
    provider_name,
)
from sidecar.config.settings import FileSettings, RouteMode, RouteSettings
from sidecar.config.tenant_files import PLACE
from sidecar.http1.admission import RESERVED
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import UpstreamAddress
from sidecar.routing.question import QuestionForm
from sidecar.routing.routes import Route, find_overlaps
from sidecar.verify.composite import Combine, name_schemes
from sidecar.verify.handshake import HandshakeMode, responds_to
from sidecar.verify.scheme import Evidence, Scheme
from sidecar.verify.template import describe_template

# -- the whole file --


def check_listeners(file: FileSettings, report: Report) -> None:
    """Each listener has its own address, and no upstream is one of them."""
    valid = {key: address for key, address in _listeners(file) if not report.is_wrong((key,))}
    for (key, taken), (later, address) in combinations(valid.items(), 2):
        if _collide(taken, address):
            what = "data" if key == "listen" else key
            report.add((later,), f"{address} is also the {what} listener ({taken}); use different ports")
    for at, upstream in _upstreams(file):
        for listener in valid.values():
            if _is_ourselves(upstream, listener):
                report.add(at, f"{upstream} is this sidecar's own listener ({listener}); use the receiver's address")


def check_proxies(file: FileSettings, report: Report) -> None:
    """Settings that rely on trusted proxies need trusted proxies."""
    if report.is_given(("trusted_proxies",)):
        return
    if file.authorize is not None and file.authorize.form is QuestionForm.FORWARD_AUTH:
        report.add(
            ("authorize", "form"),
            "is used from trusted proxies only; add `trusted_proxies: [the gateways' networks]`",
        )
    for key, used in (
        ("client_ip_header", report.is_given(("client_ip_header",))),
        ("proxy_protocol", file.proxy_protocol),
    ):
        if used:
            report.add((key,), "is used from trusted proxies only; add `trusted_proxies: [their networks]`")


def check_limits(file: FileSettings, report: Report) -> None:
    """Every body that is allowed fits into the buffer that one worker can use."""
    if report.is_wrong(("limits", "buffer")) or report.is_wrong(("workers",)):
        return
    buffer = file.limits.buffer
    for_others = RESERVED * (file.workers - 1) / file.workers
    most = int(buffer * (1 - for_others))
    which = "that one worker can use of limits.buffer" if file.workers > 1 else "of limits.buffer"
    bodies: list[tuple[Path, int | None]] = [(("limits", "body"), file.limits.body)]
    bodies += [(("routes", index, "limits", "body"), route.limits.body) for index, route in enumerate(file.routes)]
    for at, body in bodies:
        if body is not None and body > most and not report.is_wrong(at):
            given = at if report.is_given(at) else ("limits", "buffer")
            report.add(given, f"a body of {body} bytes is allowed, more than the {most} {which}; raise limits.buffer")


def check_workers(file: FileSettings, report: Report) -> None:
    """Several processes that remember deliveries share one store."""
    remembers = any(route.replay is not None and can_replay(route) for route in file.routes)
    if file.workers > 1 and remembers and file.replay_store.address is None and not report.is_wrong(("replay_store",)):
        report.add(
            ("workers",),
            "don't share the replay memory, so a copy may reach another worker; "
            "use `replay_store: redis://host:6379/0` or `workers: 1`",
        )


def check_timeouts(file: FileSettings, report: Report) -> None:
    """No provider gives up before the receiver's time is over.

    Only times that the file sets are compared: nearly every provider gives up before our defaults are over.
    """
    for index, route in enumerate(file.routes):
        _check_route_timeouts(("routes", index, "timeouts"), route, report)
    # The total includes the time until the response begins.
    key = next((key for key in ("total", "response") if report.is_given(("timeouts", key))), None)
    if key is None or report.is_wrong(("timeouts",)):
        return
    allowed: float = getattr(file.timeouts, key)
    waits = {
        route.scheme.name or f"routes[{index}]": route.scheme.delivery.timeout
        for index, route in enumerate(file.routes)
        if route.scheme is not None and route.timeouts.total is None
    }
    shorter = {name: wait for name, wait in waits.items() if wait is not None and wait < allowed}
    if shorter:
        who = ", ".join(f"{name} after {wait:g} s" for name, wait in sorted(shorter.items()))
        least = min(shorter.values())
        report.warn(
            ("timeouts", key),
            f"gives the receiver {allowed:g} s, but the provider gives up sooner: {who}; use at most {least:g}s",
        )


def _check_route_timeouts(at: Path, route: RouteSettings, report: Report) -> None:
    key = "total" if route.timeouts.total is not None else "response"
    allowed: float | None = getattr(route.timeouts, key)
    wait = route.scheme.delivery.timeout if route.scheme is not None else None
    if allowed is not None and wait is not None and wait < allowed:
        report.warn(
            (*at, key),
            f"gives the receiver {allowed:g} s, but {provider_name(route.scheme)} gives up after {wait:g} s; "
            f"use at most {wait:g}s",
        )


# -- one route --


def check_route(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    """All checks of one route, with the settings of the whole file."""
    _check_upstream(at, file, report)
    _check_purpose(at, route, report)
    _check_path((*at, "path"), route, report)
    check_extra((*at, "verify"), route.schemes, report)
    _check_public_url(at, route, file, report)
    _check_secret_ids(at, route, report)
    _check_combination(at, route, report)
    _check_token_in_path(at, route, report)
    check_replay(at, route, file, report)
    check_unavailable(at, route, file, report)
    _check_headers((*at, "headers", "set"), route, file, report)
    _check_capture((*at, "capture"), route, report)
    _check_certificate((*at, "client_certificate"), route, report)
    _check_evidence(at, route, report)
    _check_advised(at, route, file, report)
    _check_template(at, route, report)
    _check_handshake(at, route, report)
    if file.authorize is not None:
        check_question(at, route, report)


def _check_upstream(at: Path, file: FileSettings, report: Report) -> None:
    """Only gateways can ask about a route without one."""
    asked = is_asked(file, report)
    if not report.is_given((*at, "upstream")) and not report.is_given(("upstream",)) and not asked:
        report.add(
            at, "has no upstream; set `upstream` for all routes or for this one, for example http://127.0.0.1:3000"
        )


def _check_path(at: Path, route: RouteSettings, report: Report) -> None:
    """Warns about placeholders of other programs in a path, which are plain text here."""
    for segment in route.path.split("/"):
        if segment != PLACE and (re.fullmatch(r":[A-Za-z_]\w*|[{<][^{}<>]*[}>]", segment, re.ASCII)):
            report.warn(
                at,
                f"has {segment}, which is taken literally and matches nothing else; a final /* matches everything below, and "
                f"{PLACE} one segment that names a tenant",
            )


def _check_purpose(at: Path, route: RouteSettings, report: Report) -> None:
    """A route verifies something, or says explicitly that it does not."""
    if route.open:
        for key in ("verify", "secrets", "mode", "sign", "reject"):
            needless = key != "reject" or not report.is_given((*at, "allow"))
            if needless and report.is_given((*at, key)):
                report.add((*at, key), "can't be used with `open: true`; remove one of the two")
    elif not report.is_given((*at, "verify")):
        report.add(
            at,
            "verifies nothing; add `verify` with a preset or a scheme, or `open: true` to forward everything unverified",
        )
    elif route.verify == NO_SCHEME:
        if not report.is_given((*at, "allow")):
            report.add((*at, "verify"), "`none` accepts every sender; add `allow` with the networks that may send")
        if report.is_given((*at, "secrets")):
            report.add((*at, "secrets"), "can't be used with `verify: none`; remove them, or use their scheme")
    elif isinstance(route.verify, Combination) and all(member.secrets for member in route.verify.members):
        if report.is_given((*at, "secrets")):
            report.add((*at, "secrets"), "are not used, because each entry of `verify` has its own; remove them")
    elif route.scheme is not None and route.scheme.published:
        _check_published(at, route.scheme, report)
    elif not report.is_given((*at, "secrets")) and not _names_published_keys((*at, "verify"), report):
        report.add(at, "has no secrets; add `secrets: [{env: NAME}]` or `secrets: [{file: /path}]`")


def _names_published_keys(at: Path, report: Report) -> bool:
    """Whether `verify` has a mistake, but names a preset that needs no secrets."""
    value = report.value_at(at)
    if isinstance(value, Mapping) and "keys" in value:
        return True
    name = value.get("preset") if isinstance(value, Mapping) else value
    return isinstance(name, str) and name in preset_names() and load_preset(name).published


def _check_published(at: Path, scheme: Scheme, report: Report) -> None:
    """The provider publishes the keys. A secret is needed only to ask for them."""
    asks = scheme.keys is not None and any("{secret}" in value for _, value in scheme.keys.post)
    if asks and not report.is_given((*at, "secrets")):
        report.add(
            at,
            f"has no secrets; {provider_name(scheme)} requires one to send its keys: add `secrets: [{{env: NAME}}]`",
        )
    if not asks and report.is_given((*at, "secrets")):
        report.add(
            (*at, "secrets"),
            f"are not used, because {provider_name(scheme)} publishes the keys that verify; remove them",
        )


def _check_public_url(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    known = report.is_given((*at, "public_url")) or report.is_given(("public_url",))
    if any(scheme.needs_url for scheme in route.schemes) and not known:
        report.add(
            (*at, "verify"),
            "signs the URL that senders use, which is unknown; add `public_url: https://your.host` here or for all routes",
        )


def _check_secret_ids(at: Path, route: RouteSettings, report: Report) -> None:
    refs = list(route.secrets)
    if isinstance(route.verify, Combination):
        refs += [ref for member in route.verify.members for ref in member.secrets]
    for ident, count in Counter(ref.id for ref in refs).items():
        if count > 1:
            where = (*at, "secrets") if report.is_given((*at, "secrets")) else (*at, "verify")
            report.add(where, f"{count_word(count)} secrets have the id {ident!r}; set `id:` so that each is unique")


def _check_combination(at: Path, route: RouteSettings, report: Report) -> None:
    """Several schemes prove as much as the weakest of them; with `all_of` only if each has its own secret."""
    if not isinstance(route.verify, Combination) or report.is_wrong((*at, "verify")):
        return
    here = (*at, "verify", route.verify.combine)
    if route.tenant_files is not None:
        report.add((*at, "secrets"), "are for tenants, which use one scheme; use one scheme, or list the secrets")
    if route.verify.combine is Combine.ALL:
        sharing = [member for member in route.verify.members if not member.secrets]
        if len(sharing) > 1 and len(route.secrets) > 1:
            report.warn(
                here,
                "has schemes that share the route's secrets, so knowing one secret is enough to pass all of them; give each "
                "entry its own `secrets`, unless the provider uses one secret for all and this is a rotation",
            )
        return
    for index, (name, scheme) in enumerate(zip(name_schemes(route.schemes), route.schemes, strict=True)):
        if scheme.signature.kind.bearer:
            weak = "signs nothing, so anyone who sees one delivery can send any other"
        elif not scheme.binds_body:
            weak = "does not sign the body, so anyone who sees one delivery can change it"
        else:
            continue
        report.warn(
            (*here, index),
            f"{name} {weak}; one scheme is enough here, so the route proves no more than this: remove it as soon as the "
            "provider sends the other one",
        )


def _check_token_in_path(at: Path, route: RouteSettings, report: Report) -> None:
    hidden = [scheme for scheme in route.schemes if scheme.signature.path is not None]
    if hidden and not route.path.endswith("/*") and not report.is_wrong((*at, "path")):
        report.add(
            (*at, "path"),
            f"must end in /*, because the token is {hidden[0].signature.place}; for example {route.path.rstrip('/')}/*",
        )


def _check_certificate(at: Path, route: RouteSettings, report: Report) -> None:
    if route.client_certificate is None:
        return
    if not report.is_given(("trusted_proxies",)):
        report.add(at, "is used from trusted proxies only; add `trusted_proxies: [their networks]`")
    if route.open:
        report.add(at, "can't be used with `open: true`; remove one of the two")
    asked = route.client_certificate.asked
    if not asked:
        report.add(at, "compares nothing; add subject, san, issuer or fingerprint")
    if list(asked) == ["issuer"]:
        report.warn(at, "compares the issuer alone, so any certificate of that authority fits; add san or subject")


def _check_capture(at: Path, route: RouteSettings, report: Report) -> None:
    if route.capture is None:
        return
    if not report.is_given(("admin_token",)):
        report.add(at, "keeps bodies, which only the holder of a token may see; add `admin_token: {env: NAME}`")
    if route.scheme is None and not report.is_given((*at[:-1], "allow")) and not report.is_wrong((*at[:-1], "verify")):
        report.add(at, "has nothing to capture, because this route verifies nothing; remove it")
    report.warn(at, "is on: rejected requests are kept in memory, bodies included; remove it when you have seen enough")


def _check_headers(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    """`headers:` sets none of our own headers, and sends no credential with unverified deliveries."""
    if route.headers is None:
        return
    traced = {"traceparent", "tracestate"} if file.tracing is not None else set()
    for name, value in route.headers.set.items():
        if name.lower() in traced:
            report.add((*at, name), "is written by `tracing`; remove one of the two")
        if route.open and value.secret is not None:
            report.add((*at, name), "can't be sent with `open: true`, because anyone could use it; remove it")


def _check_evidence(at: Path, route: RouteSettings, report: Report) -> None:
    if route.mode is RouteMode.SHADOW or report.is_wrong((*at, "verify")):
        return
    for scheme in route.schemes:
        if scheme.name and scheme.evidence == Evidence.SECOND_HAND:
            report.warn(
                (*at, "verify"),
                f"{scheme.name} is second-hand: nobody has verified all of it against the provider's own documentation; "
                "use `mode: shadow` until real deliveries verify",
            )


def _check_advised(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    """Settings without which a provider sends no keys. A mirror may do without them."""
    if report.is_wrong((*at, "verify")) or file.keys.mirrors:
        return
    for scheme in route.schemes:
        if scheme.keys is not None and scheme.keys.oauth is None:
            missing = [each for each in scheme.settings if each.advised]
            if missing:
                names = " and ".join(f"`{each.name}` ({each.about})" for each in missing)
                report.warn(
                    (*at, "verify"),
                    f"{scheme.name} sends keys only to known applications, so nothing can be verified; add {names}",
                )


def _check_template(at: Path, route: RouteSettings, report: Report) -> None:
    if report.is_wrong((*at, "verify")):
        return
    for scheme in route.schemes:
        pair = scheme.adjacent if not scheme.signature.kind.bearer else None
        if pair is not None:
            report.warn(
                (*at, "verify"),
                f"signs {scheme.signed} with no text between {describe_template(pair[:1], {})} and "
                f"{describe_template(pair[1:], {})}, so a recording verifies with bytes moved from one to the other; "
                "use a scheme that separates them if the provider has one",
            )


def _check_handshake(at: Path, route: RouteSettings, report: Report) -> None:
    shapes = [shape for scheme in route.schemes for shape in scheme.handshake]
    if route.added_handshakes and not route.schemes and not report.is_wrong((*at, "verify")):
        report.add((*at, "handshake"), "needs a scheme that verifies the deliveries; add `verify`, or remove it")
    wants_token = any(shape.needs_token for shape in shapes)
    if not report.is_wrong((*at, "verify")):
        if route.verify_token is not None and not wants_token:
            report.add(
                (*at, "verify_token"), "is not used, because the scheme has no handshake with a token; remove it"
            )
        if route.handshake_mode is not None and not shapes:
            report.add((*at, "handshake"), "is not used, because the scheme has no handshake; remove it")
    if wants_token and route.handshake_mode is not HandshakeMode.PASS and not report.is_given((*at, "verify_token")):
        report.warn(
            at,
            "can't respond to the provider's handshake; add `verify_token: {env: NAME}`, or `handshake: pass` for the receiver",
        )
    left = [shape for shape in shapes if not shape.signed and not responds_to(shape, HandshakeMode.PASS)]
    if route.handshake_mode is HandshakeMode.PASS and left:
        report.warn(
            (*at, "handshake"),
            "forwards the provider's handshake unverified, because it has no signature: anyone can send one, without a "
            "body; have the receiver do nothing else with it, or remove `handshake` so that the sidecar responds",
        )


# -- all routes together --


def check_overlaps(routes: Sequence[Route], places: Sequence[int], report: Report) -> None:
    """No request matches two routes. `places` are the routes' indices in the file."""
    for first, second in find_overlaps(routes):
        report.add(
            ("routes", places[second], "path"),
            f"'{routes[second].place}' is also the path of routes[{places[first]}]; change one, or give each its own `hosts`"
            if routes[first].place == routes[second].place
            else f"'{routes[second].place}' overlaps '{routes[first].place}' of routes[{places[first]}]; "
            "change one, because receivers may read a path as another one and every path must have one route",
        )


def check_open_hosts(routes: Sequence[Route], places: Sequence[int], report: Report) -> None:
    """An open route of one host must not bypass a route of another: senders choose the Host that they send."""
    for index, free in enumerate(routes):
        if not free.open:
            continue
        for other, route in enumerate(routes):
            apart = not (free.hosts == route.hosts or route.open) and free.upstream == route.upstream
            if apart and (free.matches(route.path) or route.matches(free.path)):
                report.warn(
                    ("routes", places[index], "open"),
                    f"forwards '{free.place}' unverified to the receiver that gets '{route.place}' of "
                    f"routes[{places[other]}] verified, and senders choose the host; "
                    "have the receiver check the host, or use different paths",
                )


def check_names(routes: Sequence[Route], places: Sequence[int], report: Report) -> None:
    for name, count in Counter(route.name for route in routes).items():
        if count > 1:
            last = max(place for place, route in zip(places, routes, strict=True) if route.name == name)
            report.add(
                ("routes", last, "name"),
                f"{count_word(count)} routes are named {name!r}; set `name:` so that each is unique",
            )


def count_word(count: int) -> str:
    """`two` to `ten`, else digits."""
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count - 2] if 2 <= count <= 10 else str(count)


# -- addresses --


def _listeners(file: FileSettings) -> Iterable[tuple[str, ListenAddress]]:
    yield "listen", file.listen
    yield "admin", file.admin
    if file.authorize is not None:
        yield "authorize", file.authorize.listen


def _upstreams(file: FileSettings) -> Iterable[tuple[Path, UpstreamAddress]]:
    if file.upstream is not None:
        yield ("upstream",), file.upstream.url
    for index, route in enumerate(file.routes):
        if route.upstream is not None:
            yield ("routes", index, "upstream"), route.upstream.url


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def _collide(one: ListenAddress, other: ListenAddress) -> bool:
    if one.path or other.path:
        return one.path == other.path
    same_host = one.host == other.host or bool({one.host, other.host} & _EVERYWHERE)
    return one.port != 0 and one.port == other.port and same_host


def _is_ourselves(upstream: UpstreamAddress, listener: ListenAddress) -> bool:
    if upstream.path or listener.path:
        return upstream.path == listener.path
    same_host = upstream.host == listener.host or (
        upstream.host in _LOOPBACK and listener.host in _LOOPBACK | _EVERYWHERE
    )
    return upstream.port == listener.port and same_host
