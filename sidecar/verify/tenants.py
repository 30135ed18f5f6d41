"""Secrets per tenant: one route for many customers of the receiver, each with its own secret.

A request names its tenant in the path or in a header; that name proves nothing until a secret of this tenant matches. An unknown
tenant must look like a wrong signature, in the response and in time, so its request is checked against keys that nobody knows,
as often as the request of a known tenant.

This module holds what was read; config/tenant_files.py reads it. The dictionary of the store is changed by a thread while
requests look into it: each change is one assignment or one removal.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.secret import Secret
from sidecar.verify.keys import KeyFormError, read_keys
from sidecar.verify.kinds.kind import MATCHES_NOTHING, Matcher, Pieces
from sidecar.verify.scheme import Scheme

#: Bytes of a tenant's name at most.
MAX_NAME: Final = 64
#: Turns the characters of a name that are neither letters nor digits into letters.
_LETTERS: Final = bytes.maketrans(b"_-", b"aa")
#: The placeholder of the tenant in a route's path.
PLACE: Final = b"{tenant}"
#: Ids of a tenant's secrets in logs and metrics: the same words for all tenants, because they are labels.
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
#: Tenants whose matcher is kept: one takes up to 1.3 KB, and making it a few microseconds.
MAX_MATCHERS: Final = 10_000


class TenantSecrets(NamedTuple):
    """The secrets of one tenant; at least one of the two."""

    current: Secret | None
    previous: Secret | None

    @property
    def listed(self) -> list[Secret]:
        return [secret for secret in self if secret is not None]


Store = dict[str, TenantSecrets]


def is_name(text: bytes) -> bool:
    """Whether it is the name of a tenant: 1 to 64 letters, digits, `_` and `-`.

    So in a path it is one segment without an escape, and in a directory a file's name without a dot. A regular expression
    would add 1 % to a delivery (tests/bench/instructions.py); one that only known tenants match would reveal which are known.
    """
    return len(text) <= MAX_NAME and text.translate(_LETTERS).isalnum()


class TenantMatcher:
    """Checks against two keys, whether a tenant has two, one or none, so that the time doesn't reveal it.

    `of` are the secrets that it was made from, and `rotates` whether they are two; None and False for an unknown tenant.
    """

    __slots__ = ("_own", "_second", "of", "rotates")

    def __init__(self, of: TenantSecrets | None, own: Matcher, second: Matcher) -> None:
        """`second` is a decoy for a tenant with one secret, and `MATCHES_NOTHING` for one with two, both of which `own` has."""
        self.of = of
        self.rotates = of is not None and of.previous is not None
        self._own = own
        self._second = second

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        found = self._own.match(signatures, message)
        if found is None:
            self._second.match(signatures, message)  # never a match: nobody knows its key
        return found


class Tenants:
    """The tenants of one route."""

    __slots__ = ("_after", "_before", "_decoy", "_matchers", "_unknown", "directory", "header", "scheme", "store")

    def __init__(
        self,
        scheme: Scheme,
        store: Store,
        *,
        before: bytes = b"",
        after: bytes = b"",
        header: bytes = b"",
        directory: str = "",
        decoys: Sequence[Secret] = (),
    ) -> None:
        """A path names the tenant between `before` and `after`, unless `header` (lower case) does. `directory` is for people.

        `decoys` are those of `decoy_secrets`; without them nothing verifies.
        """
        self.scheme = scheme
        self.store = store
        self.header = header
        self.directory = directory
        self._before = before
        self._after = after
        self._matchers: OrderedDict[str, TenantMatcher] = OrderedDict()
        self._decoy: Matcher = MATCHES_NOTHING
        two: Matcher = MATCHES_NOTHING
        if decoys:
            self._decoy = self._make(decoys[:1])
            two = self._make(decoys)
        self._unknown = TenantMatcher(None, two, MATCHES_NOTHING)

    def name(self, head: RequestHead) -> str:
        """The tenant that a request of the route names; empty if its header is absent, repeated or not a name."""
        if not self.header:  # then `takes` chose the route
            return head.path[len(self._before) : len(head.path) - len(self._after)].decode()
        values = head.values(self.header)
        return values[0].decode() if len(values) == 1 and is_name(values[0]) else ""

    def takes(self, path: bytes) -> bool:
        """Whether a path names a tenant in the right place."""
        begin, end = len(self._before), len(path) - len(self._after)
        return begin < end and path.startswith(self._before) and path.endswith(self._after) and is_name(path[begin:end])

    def nearly_takes(self, path: bytes) -> bool:
        """Whether a path has one segment in the tenant's place, even an invalid one; for the log."""
        begin, end = len(self._before), len(path) - len(self._after)
        like = not self.header and path.startswith(self._before) and path.endswith(self._after)
        return like and begin < end and b"/" not in path[begin:end]

    def matcher(self, tenant: str) -> TenantMatcher:
        """The object that checks signatures of this tenant; for an unknown tenant it matches nothing, in the same time."""
        secrets = self.store.get(tenant)
        if secrets is None:
            return self._unknown
        made = self._matchers.get(tenant)
        if made is None or made.of is not secrets:
            made = self._matcher_of(secrets)
            self._matchers[tenant] = made
            if len(self._matchers) > MAX_MATCHERS:
                self._matchers.popitem(last=False)
        return made

    def secrets(self, tenant: str) -> Sequence[Secret]:
        """The secrets of a tenant that has some; for diagnosis."""
        found = self.store.get(tenant)
        return found.listed if found is not None else ()

    def problem(self, tenant: str) -> str:
        """Why nothing of this tenant can be verified, for the log; empty if it can."""
        if not tenant:
            return f"no tenant: the header {self.header.decode()} is absent, repeated or not a name"
        if tenant not in self.store:
            return f"no secret of this tenant in {self.directory}"
        return "" if self.matcher(tenant).of is not None else "the tenant's secret is not in the scheme's form"

    def _matcher_of(self, secrets: TenantSecrets) -> TenantMatcher:
        listed = secrets.listed
        try:
            own = self._make(listed)
        except KeyFormError:
            # One of the two may be in the form; the others can't verify anything.
            usable = [secret for secret in listed if _is_usable(self.scheme, secret)]
            if not usable:
                return self._unknown
            return TenantMatcher(secrets, self._make(usable), self._decoy)
        return TenantMatcher(secrets, own, self._decoy if len(listed) == 1 else MATCHES_NOTHING)

    def _make(self, secrets: Sequence[Secret]) -> Matcher:
        kind, algorithm = self.scheme.signature.kind, self.scheme.signature.algorithm
        return kind.make_matcher(algorithm, read_keys(self.scheme, secrets))


def decoy_secrets(scheme: Scheme, fresh: bytes) -> list[Secret]:
    """Two secrets in the scheme's form that nobody knows, with the ids of a tenant's. `fresh` are 64 random bytes."""
    made: list[Secret] = []
    for ident, half in ((CURRENT, fresh[:32]), (PREVIOUS, fresh[32:])):
        text = half.hex().encode()
        plain = Secret(ident, text)
        made.append(plain if _is_usable(scheme, plain) else Secret(ident, b"%b:%b" % (text, text)))
    return made


def _is_usable(scheme: Scheme, secret: Secret) -> bool:
    try:
        read_keys(scheme, [secret])
    except KeyFormError:
        return False
    return True
