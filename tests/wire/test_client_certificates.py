"""`client_certificate:` on the wire: what a trusted proxy passes on counts, and nothing else does."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import real_receivers
import trustme
from craft import TRUSTED, Craft
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from needs import needs
from ports import free_port
from receiver import Receiver
from sidecar_process import Config, Sidecar

NAME = "pix.example.com"
CA = trustme.CA()
PEM = CA.issue_cert(NAME, common_name=NAME).cert_chain_pems[0].bytes()
OTHER = CA.issue_cert("other.example.com", common_name="other").cert_chain_pems[0].bytes()
PARSED = x509.load_pem_x509_certificate(PEM)
SUBJECT, ISSUER = PARSED.subject.rfc4514_string(), PARSED.issuer.rfc4514_string()
HASH = PARSED.fingerprint(SHA256()).hex()
VERIFIED = (b"X-SSL-Client-Verify", b"SUCCESS")


def der(pem: bytes) -> bytes:
    body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-"))
    return b":" + base64.b64encode(base64.b64decode(body)) + b":"


def escaped(pem: bytes) -> bytes:
    return quote(pem.decode(), safe="").encode()


def route(name: str, header: str, **rule: str) -> Config:
    return {
        "name": name,
        "path": f"/webhooks/{name}",
        "verify": "begini",
        "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}],
        "client_certificate": {"header": header} | rule,
    }


CONFIG: Config = {
    "routes": [
        route("begini", "X-Forwarded-Client-Cert", san=NAME),
        route(
            "hash", "X-Forwarded-Client-Cert", fingerprint=":".join(HASH[at : at + 2].upper() for at in range(0, 64, 2))
        ),
        route("subject", "X-Forwarded-Client-Cert", subject='CN="a, b";O=Bank'),
        route("issuer", "X-Forwarded-Client-Cert", issuer=ISSUER, san=NAME),
        route("rfc", "Client-Cert", subject=SUBJECT, issuer=ISSUER, san=NAME, fingerprint=HASH),
        route("nginx", "X-SSL-Client-Cert", san=NAME),
        route("shadow", "Client-Cert", san=NAME) | {"mode": "shadow"},
    ]
}


def sent(name: str, craft: type[Craft], *fields: tuple[bytes, bytes]) -> bytes:
    return craft.begini(path=b"/webhooks/%b" % name.encode(), headers=fields)


XFCC = b"X-Forwarded-Client-Cert"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("begini", [(XFCC, b'By=spiffe://a;Hash=ab;Subject="CN=x,O=\\"y\\"";URI=;DNS=other;DNS=Pix.Example.com')]),
        ("begini", [(XFCC, b"Cert=%b" % escaped(PEM))]),
        ("hash", [(XFCC, b'Hash=%b;Subject=""' % HASH.encode())]),
        ("subject", [(XFCC, rb'Hash=ab;Subject="CN=\"a, b\";O=Bank"')]),
        ("issuer", [(XFCC, b'Hash=ab;Cert="%b"' % escaped(PEM))]),
        ("rfc", [(b"Client-Cert", der(PEM))]),
        ("nginx", [(b"X-SSL-Client-Cert", escaped(PEM)), VERIFIED]),
    ],
)
def test_a_certificate_that_a_trusted_proxy_passes_on_and_that_fits_is_accepted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, fields: list[tuple[bytes, bytes]]
) -> None:
    assert sidecar.ask(sent(name, craft, *fields), source=TRUSTED).status == 200
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("begini", []),
        ("begini", [(XFCC, b"")]),
        ("begini", [(XFCC, b"DNS=pix.example.com.evil.test")]),
        ("begini", [(XFCC, b'Subject="DNS=pix.example.com"')]),
        ("begini", [(XFCC, b'Subject="x\\";DNS=pix.example.com"')]),
        ("begini", [(XFCC, b"DNS=pix.example.com"), (XFCC, b"DNS=pix.example.com")]),
        ("begini", [(XFCC, b"DNS=pix.example.com,DNS=other")]),
        ("begini", [(XFCC, b"DNS=other,DNS=pix.example.com")]),
        ("begini", [(XFCC, b"nonsense")]),
        ("begini", [(XFCC, b"Cert=%b;DNS=pix.example.com" % escaped(OTHER))]),
        ("begini", [(XFCC, b"DNS=pix.example.com;x=" + b"y" * 17_000)]),
        ("begini", [(b"X_Forwarded_Client_Cert", b"DNS=pix.example.com")]),
        ("hash", [(XFCC, b"Hash=%b;Hash=%b" % (b"ab" * 32, HASH.encode()))]),
        ("issuer", [(XFCC, b"Hash=ab;DNS=pix.example.com")]),  # Envoy does not say who issued it
        ("rfc", [(b"Client-Cert", der(OTHER))]),
        ("rfc", [(b"Client-Cert", der(PEM)[1:])]),
        ("rfc", [(b"Client-Cert", b":AAAA:")]),
        ("rfc", [(b"Client-Cert", der(PEM)), (b"Client-Cert", der(PEM))]),
        ("nginx", [(b"X-SSL-Client-Cert", escaped(PEM))]),
        ("nginx", [(b"X-SSL-Client-Cert", escaped(PEM)), (b"X-SSL-Client-Verify", b"FAILED:self-signed certificate")]),
        ("nginx", [(b"X-SSL-Client-Cert", escaped(OTHER)), VERIFIED]),
        ("nginx", [(b"X-SSL-Client-Cert", b"-----BEGIN CERTIFICATE-----%0Aabc"), VERIFIED]),
    ],
)
def test_any_other_one_is_rejected_like_a_wrong_signature(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, fields: list[tuple[bytes, bytes]]
) -> None:
    raw = sent(name, craft, *fields)
    answer = sidecar.refused(raw, 403, "client_certificate_mismatch", receiver=receiver, route=name, source=TRUSTED)
    assert answer.body == b'{"detail":"Validation Failure"}'


def test_the_header_of_anybody_else_counts_for_nothing(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = sent("begini", craft, (XFCC, b"DNS=pix.example.com"))
    sidecar.refused(raw, 403, "client_certificate_mismatch", receiver=receiver, source="127.0.0.4")


def test_the_signature_is_checked_as_well(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini(secret="OTHER_API_KEY", headers=[(XFCC, b"DNS=pix.example.com")])
    sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver, source=TRUSTED)


def test_shadow_mode_counts_it_and_forwards(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(sent("shadow", craft), source=TRUSTED).status == 200
    assert sidecar.delivery(mark)["shadow_reason"] == "client_certificate_mismatch"
    assert receiver.requests[0].values(b"x-webhook-verified") == [b"shadow-rejected"]


PROXY = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {cert};
    ssl_client_certificate {ca}; ssl_verify_client optional;
    location / {{
      proxy_pass http://{sidecar}; proxy_bind 127.0.0.9;
      proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
      proxy_set_header X-SSL-Client-Verify $ssl_client_verify;
    }}
  }}
}}
"""


def test_behind_a_real_nginx_only_the_holder_of_the_key_comes_through(
    sidecar: Sidecar, craft: type[Craft], tmp_path: Path
) -> None:
    import ssl  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    program, port = needs("nginx"), free_port()
    for name, identity in (("server", "127.0.0.1"), ("pix", NAME), ("other", "other.example.com")):
        CA.issue_cert(identity).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    file = tmp_path / "nginx.conf"
    server = tmp_path / "server.pem"
    file.write_text(PROXY.format(port=port, cert=server, ca=tmp_path / "ca.pem", sidecar=sidecar.address))
    head, _, body = sent("nginx", craft).partition(b"\r\n\r\n")
    fields = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:])

    def status(certificate: str, **forged: Any) -> int:
        context = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
        if certificate:
            context.load_cert_chain(tmp_path / f"{certificate}.pem")
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}/webhooks/nginx",
            body,
            {
                "X-Signature": fields["X-Signature"],
                "X-SSL-Client-Cert": escaped(PEM).decode(),
                "X-SSL-Client-Verify": "SUCCESS",
            },
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with real_receivers.run([program, "-p", str(tmp_path), "-c", str(file)], port):
        assert [status("pix"), status("other"), status("")] == [200, 403, 403]
    sidecar.settled()
