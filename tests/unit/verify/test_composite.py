"""Several schemes as one verifier."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.presets import load_preset
from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import Header, RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.composite import Combine, Composite, strongest, weakest
from sidecar.verify.keys import KeyFormError
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import sign
from sidecar.verify.verifier import Verified, Verifier

NOW = 1_800_000_000.0
BODY = b'{"a":1}'
KEY = Secret("key", b"secret of the first scheme")
TOKEN = Secret("token", b"secret of the second scheme")


def scheme(**keys: Any) -> Scheme:
    return SCHEME.read(keys)


HMAC = scheme(signature={"header": "X-Mac"})
HMAC_2 = scheme(signature={"header": "X-Mac-2", "algorithm": "sha512"})
BEARER = scheme(signature={"header": "X-Token", "kind": "token"})
CLOCKED = scheme(
    signature={"header": "X-Clocked"}, timestamp={"header": "X-Time", "tolerance": "5m"}, signed="{timestamp}.{body}"
)
IN_BODY = scheme(signature={"field": "token", "kind": "token"})


def head_of(*headers: tuple[str, str]) -> RequestHead:
    fields: list[Header] = [(name.encode(), value.encode()) for name, value in headers]
    return make_head("POST", b"/", fields, None)


def signed(made: Scheme, secret: Secret, body: bytes = BODY, now: float = NOW) -> list[tuple[str, str]]:
    return sign(made, secret, body=body, now=now)


def composite(combine: Combine, *members: tuple[Scheme, Secret]) -> Composite:
    return Composite(combine, [Verifier(made, [secret]) for made, secret in members])


def decide(verifier: Verifier, head: RequestHead, body: bytes = BODY) -> Verified:
    """As the stages do."""
    unsigned = verifier.unsigned(head)
    if unsigned is not None:
        with pytest.raises(Rejected) as error:
            verifier.read_claim(head, NOW)
        assert error.value.reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MALFORMED)
        raise Rejected(unsigned.reason, unsigned.detail)
    return verifier.verify(verifier.read_claim(head, NOW), head, [body])


def why(verifier: Verifier, *headers: tuple[str, str], body: bytes = BODY) -> Rejected:
    with pytest.raises(Rejected) as error:
        decide(verifier, head_of(*headers), body)
    return error.value


ANY = composite(Combine.ANY, (HMAC, KEY), (BEARER, TOKEN))
ALL = composite(Combine.ALL, (BEARER, TOKEN), (HMAC, KEY))
OLD = signed(CLOCKED, KEY, now=NOW - 1000)
MAC, FORGED, SHOWN = signed(HMAC, KEY), signed(HMAC, TOKEN), signed(BEARER, TOKEN)
WRONG = [("X-Token", "wrong")]


def test_any_of_accepts_what_one_of_its_schemes_accepts() -> None:
    assert decide(ANY, head_of(*MAC)) == Verified("key")
    assert decide(ANY, head_of(*SHOWN)) == Verified("token", member=1)
    assert decide(ANY, head_of(*MAC, *WRONG)).secret_id == "key"
    assert decide(ANY, head_of(*FORGED, *SHOWN)).secret_id == "token"


def test_all_of_accepts_what_every_one_of_its_schemes_accepts() -> None:
    accepted = decide(ALL, head_of(*MAC, *SHOWN))
    assert accepted == Verified("key", member=1, also=("token",))
    assert why(ALL, *MAC).reason is Reason.SIGNATURE_MISSING
    assert why(ALL, *SHOWN).reason is Reason.SIGNATURE_MISSING
    assert why(ALL, *MAC, *WRONG).reason is Reason.TOKEN_MISMATCH
    assert why(ALL, *FORGED, *SHOWN).reason is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("members", "headers", "reason", "name"),
    [
        ([(HMAC, KEY), (BEARER, TOKEN)], [], Reason.SIGNATURE_MISSING, "scheme 1"),
        ([(HMAC, KEY), (BEARER, TOKEN)], WRONG, Reason.TOKEN_MISMATCH, "scheme 2"),
        ([(BEARER, TOKEN), (HMAC, KEY)], [*WRONG, ("X-Mac", "short")], Reason.TOKEN_MISMATCH, "scheme 1"),
        ([(BEARER, TOKEN), (HMAC, KEY)], [*FORGED, *WRONG], Reason.SIGNATURE_MISMATCH, "scheme 2"),
        ([(HMAC, KEY), (CLOCKED, KEY)], OLD, Reason.TIMESTAMP_TOO_OLD, "scheme 2"),
        ([(CLOCKED, KEY), (HMAC, KEY)], [*OLD, *FORGED], Reason.SIGNATURE_MISMATCH, "scheme 2"),
        ([(HMAC, KEY), (CLOCKED, KEY)], [("X-Mac", "short"), *OLD], Reason.TIMESTAMP_TOO_OLD, "scheme 2"),
        ([(HMAC, KEY), (IN_BODY, TOKEN)], [("X-Mac", "short")], Reason.SIGNATURE_MALFORMED, "scheme 1"),
        ([(HMAC, KEY), (IN_BODY, TOKEN)], [], Reason.SIGNATURE_MISSING, "scheme 1"),
    ],
)
def test_the_rejection_of_any_of_is_that_of_the_scheme_that_came_furthest(
    members: Sequence[tuple[Scheme, Secret]], headers: list[tuple[str, str]], reason: Reason, name: str
) -> None:
    verifier = composite(Combine.ANY, *members)
    rejected = why(verifier, *headers)
    assert rejected.reason is reason
    assert rejected.detail.startswith(f"{name}: ")
    attempted = verifier.attempted(head_of(*headers), [BODY], NOW)
    assert attempted is verifier.members()[int(name[-1]) - 1]


def test_every_rejection_is_a_new_exception() -> None:
    assert why(ANY, *WRONG) is not why(ANY, *WRONG)
    assert why(ALL, *WRONG, *MAC) is not why(ALL, *WRONG, *MAC)


def test_every_scheme_of_all_of_is_asked_before_a_delivery_is_rejected() -> None:
    asked: list[str] = []

    class Asked:
        def __init__(self, name: str, answer: str | None) -> None:
            self.name, self.answer = name, answer

        def match(self, signatures: Any, message: Any) -> str | None:
            asked.append(self.name)
            return self.answer

    members = [Verifier(BEARER, [TOKEN]), Verifier(HMAC, [KEY])]
    members[0]._matcher, members[1]._matcher = Asked("token", None), Asked("mac", "key")
    verifier = Composite(Combine.ALL, members)
    assert why(verifier, *MAC, *SHOWN).reason is Reason.TOKEN_MISMATCH
    assert asked == ["token", "mac"]


def test_a_secret_of_one_scheme_is_no_secret_of_another() -> None:
    assert why(ANY, ("X-Token", "secret of the first scheme")).reason is Reason.TOKEN_MISMATCH
    assert why(ANY, *FORGED).reason is Reason.SIGNATURE_MISMATCH


def test_the_age_is_that_of_the_scheme_that_accepts() -> None:
    verifier = composite(Combine.ANY, (CLOCKED, KEY), (HMAC, KEY))
    assert decide(verifier, head_of(*signed(CLOCKED, KEY, now=NOW - 60))).age == 60
    assert decide(verifier, head_of(*MAC)).age is None
    both = composite(Combine.ALL, (BEARER, TOKEN), (CLOCKED, KEY))
    assert decide(both, head_of(*SHOWN, *signed(CLOCKED, KEY, now=NOW - 7))).age == 7


def test_the_strongest_scheme_binds_the_body_then_the_time_then_the_id() -> None:
    unbound = scheme(signature={"header": "X"}, signed="{method}", binds_body=False)
    assert strongest([BEARER, HMAC]) == 1
    assert strongest([HMAC, CLOCKED]) == 1
    assert strongest([CLOCKED, HMAC]) == 0
    assert strongest([unbound, HMAC]) == 1
    assert strongest([BEARER, unbound]) == 1
    assert strongest([HMAC, HMAC_2]) == 0
    assert weakest(Combine.ANY, [BEARER, HMAC]) == [BEARER, HMAC]
    assert list(weakest(Combine.ALL, [BEARER, HMAC])) == [HMAC]


def fingerprints(verifier: Verifier, *headers: tuple[str, str]) -> list[bytes]:
    head = head_of(*headers)
    claim = verifier.read_claim(head, NOW)
    keys = verifier.replay_keys(verifier.verify(claim, head, [BODY]), claim, head, [BODY], scope="r")
    assert not keys.items
    return [keys.own, *keys.also]


def test_a_copy_has_a_fingerprint_of_the_original_whichever_signature_is_left() -> None:
    verifier = composite(Combine.ANY, (CLOCKED, KEY), (HMAC, KEY))
    clocked = signed(CLOCKED, KEY)
    whole = fingerprints(verifier, *clocked, *MAC)
    assert len(whole) == 2
    assert fingerprints(verifier, *clocked) == whole[:1]
    assert fingerprints(verifier, *MAC) == whole[1:]
    assert fingerprints(verifier, *clocked, *FORGED) == whole[:1]
    both = composite(Combine.ALL, (BEARER, TOKEN), (CLOCKED, KEY))
    assert len(fingerprints(both, *SHOWN, *clocked)) == 1
    assert fingerprints(both, *SHOWN, *clocked) == whole[:1]


def test_the_interface_is_the_sum_of_the_members() -> None:
    assert ANY.headers() == {b"x-mac", b"x-token"}
    assert [secret.id for secret in ANY.secrets] == ["key", "token"]
    assert ANY.passes == 2
    assert not ANY.reads_body
    assert composite(Combine.ANY, (HMAC, KEY), (IN_BODY, TOKEN)).reads_body
    gitlab = composite(
        Combine.ANY,
        (load_preset("gitlab"), TOKEN),
        (load_preset("gitlab-signing-token"), Secret("w", b"whsec_c2VjcmV0")),
    )
    assert gitlab.delivery_id(head_of(("Idempotency-Key", "1"), ("webhook-id", "2"))) == b"1"
    assert gitlab.delivery_id(head_of(("webhook-id", "2"))) == b"2"
    assert gitlab.delivery_id(head_of()) == b""


def test_other_secrets_go_to_the_schemes_whose_form_they_have() -> None:
    gitlab = composite(
        Combine.ANY,
        (load_preset("gitlab"), TOKEN),
        (load_preset("gitlab-signing-token"), Secret("w", b"whsec_c2VjcmV0")),
    )
    new = [Secret("plain", b"?"), Secret("other", b"whsec_b3RoZXI=")]
    given = gitlab.with_others(new, "")
    assert [[secret.id for secret in member.secrets] for member in given.members()] == [["plain", "other"], ["other"]]
    with pytest.raises(KeyFormError, match="gitlab-signing-token"):
        gitlab.with_others(new[:1], "")
    assert gitlab.with_others([], "").secrets == gitlab.secrets


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["X-Mac", "X-Token", "X-Clocked", "X-Time", "x-mac"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=70)
        | st.sampled_from([value for _, value in [*MAC, *SHOWN, *OLD, *FORGED]]),
    ),
    max_size=6,
)


@given(HEADERS, st.sampled_from([BODY, b"", b"{}", b'{"token":"x"}']), st.sampled_from(list(Combine)))
def test_a_composite_decides_like_its_members_together(
    headers: list[tuple[str, str]], body: bytes, combine: Combine
) -> None:
    members = [(HMAC, KEY), (BEARER, TOKEN), (CLOCKED, KEY), (IN_BODY, TOKEN)]
    head = head_of(*headers)

    def accepts(verifier: Verifier) -> bool:
        try:
            decide(verifier, head, body)
        except Rejected:
            return False
        return True

    alone = [accepts(Verifier(made, [secret])) for made, secret in members]
    assert accepts(composite(combine, *members)) is (any(alone) if combine is Combine.ANY else all(alone))
