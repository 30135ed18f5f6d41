"""The handshakes of a route: those of its schemes, and those that it adds."""

from collections.abc import Sequence
from typing import Final

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.handshake import HandshakeMode, Handshakes, Shape
from sidecar.verify.template import BODY
from sidecar.verify.verifier import Verifier

_PUBLISHED: Final = "published"


def list_shapes(verifier: Verifier, added: Sequence[Shape] = ()) -> list[tuple[Shape, Verifier]]:
    """Each different handshake, with the verifier of the scheme that brings it."""
    found: list[tuple[Shape, Verifier]] = []
    for member in verifier.members():
        found += [(shape, member) for shape in member.scheme.handshake]
    found += [(shape, verifier.members()[0]) for shape in added]
    different: list[tuple[Shape, Verifier]] = []
    for shape, member in found:
        if all(shape != other for other, _ in different):
            different.append((shape, member))
    return different


def make_handshakes(
    verifier: Verifier, mode: HandshakeMode | None, *, token: Secret | None, url: str, added: Sequence[Shape] = ()
) -> Handshakes | None:
    """None if there is none that can be responded to. `url` is the one that the provider calls, without a query; or empty."""
    listed = list_shapes(verifier, added)
    made = Handshakes(
        [shape for shape, _ in listed],
        mode,
        secrets=[member.secrets[0] if member.secrets else None for _, member in listed],
        published=[
            (shape, _PublishedSecret(shape, member).verify) for shape, member in listed if shape.published_secret
        ],
        token=token,
        url=url,
        signs_body_alone=any(member.scheme.parts == (BODY,) for member in verifier.members()),
    )
    return made if made.signed or made.unsigned or made.has_published else None


class _PublishedSecret:
    """Verifies as the scheme does, by the one secret that a shape names."""

    __slots__ = ("_verifier",)

    def __init__(self, shape: Shape, member: Verifier) -> None:
        secret = Secret(_PUBLISHED, shape.published_secret.encode())
        self._verifier = Verifier(member.scheme, [secret], member.public_url)

    def verify(self, head: RequestHead, body: Sequence[bytes], now: float | None) -> bool:
        """Whether the request is signed with it."""
        try:
            return self._verifier.match(self._verifier.read_claim(head, now), head, body) is not None
        except Rejected:
            return False
