"""Chains of certificates, made here: what proves that the leaf is the sender's, and every way in which it doesn't."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.certificates import MAX_CERTIFICATES, CertificateError, check_chain, check_name
from sidecar.verify.chain_finder import ChainFinder
from sidecar.verify.claim_rules import CertificatePlace

NOW = 1_700_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
DAY = timedelta(days=1)
OTHER_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


@dataclass
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def x5c(self) -> str:
        return b64encode(self.certificate.public_bytes(Encoding.DER)).decode()


def issue(
    names: str | list[str],
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    length: int | None = None,
    may_sign: bool = True,
    oids: tuple[str, ...] = (),
    begin: datetime = MOMENT - DAY,
    end: datetime = MOMENT + DAY,
) -> Issued:
    """Signed by `issuer`, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    listed = [names] if isinstance(names, str) else names
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in listed])
    above = issuer.certificate.subject if issuer is not None else subject
    builder = x509.CertificateBuilder(above, subject, key.public_key(), x509.random_serial_number(), begin, end)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
        usage = dict.fromkeys(OTHER_USAGES, False)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=may_sign, **usage), critical=True)
    for oid in oids:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=False)
    return Issued(builder.sign(issuer.key if issuer is not None else key, hashes.SHA256()), key)


ROOT = issue("root", ca=True)
BETWEEN = issue("between", ROOT, ca=True, length=0)
LEAF = issue("sender.example", BETWEEN)


def chain(leaf: Issued, *between: Issued, now: float | None = NOW) -> list[x509.Certificate]:
    return check_chain(leaf.certificate, [each.certificate for each in between], [ROOT.certificate], now)


def test_a_leaf_that_a_pinned_root_vouches_for_is_trusted() -> None:
    assert chain(LEAF, BETWEEN) == [LEAF.certificate, BETWEEN.certificate, ROOT.certificate]
    assert chain(issue("direct", ROOT))[1:] == [ROOT.certificate]
    assert chain(ROOT) == [ROOT.certificate]


@pytest.mark.parametrize(
    ("leaf", "between"),
    [
        pytest.param(LEAF, [], id="no intermediate"),
        pytest.param(issue("x", issue("root", ca=True)), [], id="a root of the same name"),
        pytest.param(issue("x", LEAF), [LEAF, BETWEEN], id="issued by a leaf"),
        pytest.param(
            issue("x", (second := issue("second", BETWEEN, ca=True))), [second, BETWEEN], id="beyond the path length"
        ),
        pytest.param(
            issue("x", (mute := issue("mute", ROOT, ca=True, may_sign=False))), [mute], id="may not sign certificates"
        ),
        pytest.param(
            issue("x", (old := issue("old", ROOT, ca=True, end=MOMENT - DAY / 2))), [old], id="expired intermediate"
        ),
        pytest.param(issue("x", ROOT, end=MOMENT - DAY / 2), [], id="expired leaf"),
        pytest.param(issue("x", ROOT, begin=MOMENT + DAY / 2), [], id="leaf not valid yet"),
        pytest.param(issue("self-made"), [], id="signed by itself"),
    ],
)
def test_any_other_leaf_is_not(leaf: Issued, between: list[Issued]) -> None:
    with pytest.raises(CertificateError):
        chain(leaf, *between)


def test_a_chain_that_leads_in_a_circle_or_is_too_long_ends() -> None:
    above = ROOT
    line = [above := issue(f"ca {number}", above, ca=True) for number in range(6)]
    with pytest.raises(CertificateError, match="too long"):
        chain(issue("x", line[-1]), *line)
    loop = issue("loop", ca=True)
    with pytest.raises(CertificateError):
        chain(issue("x", loop), loop)


@pytest.mark.parametrize(
    "names",
    [
        "sns.us-east-1.amazonaws.com.evil.example",
        "evil.sns.us-east-1.amazonaws.com",
        "sns.a.b.amazonaws.com",
        "snsXus-east-1.amazonaws.com",
        "sns..amazonaws.com",
        ["sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com"],
        [],
    ],
)
def test_a_leaf_with_a_look_alike_name_is_somebody_elses(names: str | list[str]) -> None:
    check_name(issue("SNS.us-east-1.amazonaws.com").certificate, ["sns.*.amazonaws.com"])
    with pytest.raises(CertificateError, match="common name"):
        check_name(issue(names).certificate, ["sns.*.amazonaws.com"])


# A token's own chain


def finder(**more: Any) -> ChainFinder:
    return ChainFinder(CertificatePlace(roots=ROOT.pem, **more))


def test_the_leaf_of_a_tokens_chain_is_its_key() -> None:
    found = finder(length=3, extensions=()).find([LEAF.x5c, BETWEEN.x5c, ROOT.x5c], NOW)
    assert found == LEAF.certificate.public_key()


def test_certificates_are_judged_at_the_time_of_the_token() -> None:
    keys = finder()
    sent = [LEAF.x5c, BETWEEN.x5c, ROOT.x5c]
    keys.find(sent, NOW)
    for moment in (NOW - 2 * 86400, NOW + 2 * 86400):
        with pytest.raises(Rejected, match="not valid when it was signed"):
            keys.find(sent, moment)


def test_a_chain_that_was_trusted_vouches_for_no_other_leaf() -> None:
    keys = finder()
    trusted, forged = issue("sender.example", ROOT), issue("sender.example")
    assert keys.find([trusted.x5c], NOW) == trusted.certificate.public_key()
    for sent in ([forged.x5c], [forged.x5c, trusted.x5c], [forged.x5c, BETWEEN.x5c, ROOT.x5c]):
        with pytest.raises(Rejected) as rejected:
            keys.find(sent, NOW)
        assert rejected.value.reason is Reason.KEY_UNKNOWN


def test_each_certificate_must_have_its_extension() -> None:
    leaf_oid, issuer_oid = "1.2.840.113635.100.6.11.1", "1.2.840.113635.100.6.2.1"
    above = issue("apple ca", ROOT, ca=True, oids=(issuer_oid,))
    keys = finder(extensions=(leaf_oid, issuer_oid))
    good = issue("prod", above, oids=(leaf_oid,))
    assert keys.find([good.x5c, above.x5c, ROOT.x5c], NOW) == good.certificate.public_key()
    for leaf, issuer in ((issue("x", above), above), (issue("x", BETWEEN, oids=(leaf_oid,)), BETWEEN)):
        with pytest.raises(Rejected, match="lacks the extension"):
            keys.find([leaf.x5c, issuer.x5c, ROOT.x5c], NOW)


@pytest.mark.parametrize(
    ("x5c", "why"),
    [
        (None, "not a list"),
        ([], "not a list"),
        ([1], "not a list"),
        ([LEAF.x5c] * (MAX_CERTIFICATES + 1), "more than"),
        ([LEAF.x5c.rstrip("=") + " "], "base64"),
        (["AAAA", "AAAA"], "can't be read"),
    ],
)
def test_what_is_no_chain_is_rejected_before_its_signatures_cost_anything(x5c: Any, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        finder().find(x5c, NOW)
