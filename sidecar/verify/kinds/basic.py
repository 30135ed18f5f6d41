"""`kind: basic`: HTTP Basic authentication (RFC 7617); the secret is `user:password`."""

from base64 import b64encode

from sidecar.verify.keys import KeyForm, KeyFormError, key_bytes
from sidecar.verify.kinds.kind import Kind
from sidecar.verify.kinds.token import PREFIXES, make_token_matcher, show_token


def _read_key(form: KeyForm, text: bytes) -> bytes:
    key = key_bytes(form, text)
    if not key.partition(b":")[2]:
        raise KeyFormError("is not user:password; write both into the secret, with a colon between them")
    return b64encode(key)


BASIC = Kind(
    name="basic",
    key_forms=(KeyForm.UTF8, KeyForm.NFKD),
    read_key=_read_key,
    make_matcher=make_token_matcher,
    sign=show_token,
    bearer=True,
    prefix="Basic ",
    shown_as="user and password in base64",
    other_prefixes=PREFIXES,
)
