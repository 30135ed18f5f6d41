"""`kind: jws`: a detached JSON Web Signature, whose message `signed:` composes (RFC 7515, appendix F; RFC 7797).

`verify/detached.py` verifies it.
"""

from sidecar.verify.keys import SHARED_FORMS, KeyForm
from sidecar.verify.kinds.jwt import read_key, read_private_key
from sidecar.verify.kinds.kind import Kind

JWS = Kind(
    name="jws",
    title="detached JWS ({algorithm})",
    key_forms=(*SHARED_FORMS, KeyForm.PEM),
    read_key=read_key,
    read_private_key=read_private_key,
    detached=True,
    shown_as="a detached JSON Web Signature, two parts of base64url with '..' between",
)
