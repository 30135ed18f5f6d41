"""`kind: jws`: a detached JSON Web Signature, whose message `signed:` composes (RFC 7515, appendix F; RFC 7797).

`verify/detached.py` verifies it.
"""

from sidecar.verify.algorithms import Algorithm
from sidecar.verify.keys import SHARED_FORMS, KeyForm
from sidecar.verify.kinds.jwt import read_key, read_private_key
from sidecar.verify.kinds.kind import MATCHES_NOTHING, Keys, Kind, Matcher, Pieces


def _make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    """What is signed begins with the head of the signature, which no matcher is given."""
    return MATCHES_NOTHING


def _sign(algorithm: Algorithm, key: object, message: Pieces) -> bytes:
    raise NotImplementedError("verify/sign_token.py signs tokens")


JWS = Kind(
    name="jws",
    title="detached JWS ({algorithm})",
    key_forms=(*SHARED_FORMS, KeyForm.PEM),
    read_key=read_key,
    read_private_key=read_private_key,
    make_matcher=_make_matcher,
    sign=_sign,
    detached=True,
    shown_as="a detached JSON Web Signature, two parts of base64url with '..' between",
)
