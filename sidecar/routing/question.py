"""The subject of a gateway's question: the head of a delivery, as the sender sent it.

    envoy         the question is the delivery itself, with a prefix before its path (ext_authz over HTTP of Envoy)
    forward-auth  X-Forwarded-Method, -Uri and -Host say what the delivery is (Traefik, Caddy, nginx's auth_request)

In the second form these fields choose the route that judges, so they are believed only from a trusted proxy, and never from
Envoy: Envoy passes the sender's fields on, and they may name another path than the one it asks about. It marks its questions with
a field that it removes from senders' requests.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

from sidecar.http1.head import Header, RequestHead, check_head, make_head
from sidecar.outcomes import Reason, Rejected

_METHOD: Final = b"x-forwarded-method"
_URI: Final = b"x-forwarded-uri"
_HOST: Final = b"x-forwarded-host"
#: Envoy adds it to each of its own requests, and removes it from requests of senders.
_ENVOYS_OWN: Final = b"x-envoy-internal"
_METHOD_NAME: Final = re.compile(rb"[A-Z][A-Z-]{0,31}")


class QuestionForm(StrEnum):
    """`authorize.form`."""

    ANY = "any"
    ENVOY = "envoy"
    FORWARD_AUTH = "forward-auth"


class Question(NamedTuple):
    """The delivery that a question is about."""

    head: RequestHead
    rejected: Rejected | None = None  #: why its subject is unknown; `head` is then the question's own
    disbelieved: bool = False  #: whether the fields of forward-auth are present, from a peer that isn't a trusted proxy


def is_described(head: RequestHead) -> bool:
    """Whether the fields of forward-auth are present. Whether they are believed depends on the peer."""
    return _METHOD in head.fields and _URI in head.fields


def read_question(head: RequestHead, form: QuestionForm, prefix: bytes, *, trusted: bool) -> Question:
    """`prefix` is `authorize.path_prefix`; `trusted` says whether the question comes from a trusted proxy."""
    described = is_described(head)
    if form is not QuestionForm.FORWARD_AUTH:
        if prefix and head.target.startswith(prefix + b"/"):
            return Question(_with_target(head, head.target[len(prefix) :]))
        if not (described and trusted) or form is QuestionForm.ENVOY:
            if prefix:
                why = f"the question's path does not begin with authorize.path_prefix ({prefix.decode()})"
                return Question(head, Rejected(Reason.NO_ROUTE, why), described and not trusted)
            return Question(head, None, described and not trusted)
        if not prefix and _ENVOYS_OWN in head.fields:
            return Question(
                head,
                Rejected(
                    Reason.MALFORMED_REQUEST,
                    "a question of Envoy has X-Forwarded-Method and -Uri, which its sender wrote; if another proxy did, "
                    "set `authorize.form`",
                ),
            )
    if not trusted:
        return Question(head, Rejected(Reason.NO_ROUTE, "the route is unknown"), disbelieved=True)
    return _read_fields(head)


def _with_target(head: RequestHead, target: bytes) -> RequestHead:
    return make_head(head.method, target, head.headers, head.peer)


def _read_fields(head: RequestHead) -> Question:
    methods, uris, hosts = (head.values(name) for name in (_METHOD, _URI, _HOST))
    if len(methods) != 1 or len(uris) != 1 or len(hosts) > 1 or not _METHOD_NAME.fullmatch(methods[0]):
        why = "X-Forwarded-Method and -Uri must appear once, and -Host at most once"
        return Question(head, Rejected(Reason.MALFORMED_REQUEST, why))
    fields: list[Header] = []
    for name, lower, value in zip(head.names.listed, head.names.lower, head.field_values):
        if lower in (_METHOD, _URI):
            continue
        fields.append((name, hosts[0] if lower == b"host" and hosts else value))
    described = make_head(methods[0].decode(), uris[0], fields, head.peer)
    fault = check_head(described, version="1.1")
    if fault is not None:
        return Question(head, Rejected(fault.reason, f"in the question's X-Forwarded fields: {fault.detail}"))
    return Question(described)
