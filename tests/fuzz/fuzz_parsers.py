"""Coverage-guided fuzzing of the parsers that see a sender's bytes first, with Atheris: `make fuzz-parsers`.

    python tests/fuzz/fuzz_parsers.py scheme|address|signature|token|keys|certificate -max_total_time=120 [libFuzzer's options]

`scheme`: any headers, target and body against every preset raise `Rejected` or nothing, and nothing verifies that was not signed.
`signature`: any text in the fields of HTTP Message Signatures (RFC 9421) and of their draft raises `Rejected`, and nothing verifies that
was not signed; the structured fields are http-sf's to parse. tests/properties/test_http_signatures.py mutates some thousand in the suite.
`address`: any text is an address or None, and agrees with Python's `ipaddress` on what it takes; any chain of hops has a client
or is unreadable, and never one that only the part to the left of an unreadable hop names.
`token`: any text is a compact or detached JWS, or `TokenError`; what it is taken for is written in that one way only.
`keys`: any document is keys that are strong enough, or `ValueError`; a link leads to an allowed host or nowhere.
`certificate`: any PEM, DER or chain is certificates, or `CertificateError` and its like; none ends in a root that did not issue it.
"""

import ipaddress
import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import atheris

#: `sidecar` imports these when a route needs them, and what is imported later is not instrumented.
LAZY = (
    "http_sf", "sidecar.verify.listed_verifier", "sidecar.verify.http_signature", "sidecar.verify.draft_signature",
    "sidecar.verify.components", "sidecar.verify.body_hash", "sidecar.verify.chain_finder", "sidecar.verify.published_matcher",
    "sidecar.verify.token_verifier",
)  # fmt: skip

with atheris.instrument_imports(include=["sidecar", "http_sf"]):
    for module in LAZY:
        import_module(module)
    import document_parsers

    from sidecar.config.presets import Verify, load_preset, preset_names
    from sidecar.http1.head import make_head
    from sidecar.outcomes import Rejected
    from sidecar.routing.client_ip import resolve_client
    from sidecar.routing.networks import Networks, parse_address
    from sidecar.secret import Secret
    from sidecar.verify.keys import KeyForm
    from sidecar.verify.kinds.basic import BASIC
    from sidecar.verify.scheme import Scheme
    from sidecar.verify.verifier import Verifier

NOW = 1_700_000_000.0
KEYS = {
    KeyForm.HEX: b"5e" * 32,
    KeyForm.BASE64: b"c2VjcmV0" * 4,
    KeyForm.WHSEC: b"whsec_" + b"c2VjcmV0" * 4,
    KeyForm.AFTER_COLON: b"name:a key that no input can guess",
    KeyForm.SHA1_AFTER_COLON: b"name:a key that no input can guess",
}


def verifiers() -> list[tuple[Verifier, list[bytes]]]:
    """One for each preset with a shared secret, and the header names that it reads."""
    made = []
    for name in preset_names():
        scheme = load_preset(name)
        if scheme.signature.kind.read_private_key is not None:
            continue
        if scheme.published:
            continue
        key = b"user:a password that no input can guess" if scheme.signature.kind is BASIC else KEYS.get(scheme.key)
        verifier = Verifier(scheme, [Secret("a", key or b"a-key-that-no-input-can-guess")], "https://hooks.example.com")
        names = [(scheme.signature.header or "X-Signature").replace("{n}", "1").encode(), b"Content-Type"]
        names += [scheme.timestamp.header.encode()] if scheme.timestamp and scheme.timestamp.header else []
        made.append((verifier, names))
    return made


VERIFIERS = verifiers()
TRUSTED = Networks([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")])


def scheme(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    verifier, names = VERIFIERS[provider.ConsumeIntInRange(0, len(VERIFIERS) - 1)]
    headers = []
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        name = names[provider.ConsumeIntInRange(0, len(names) - 1)]
        headers.append((name, provider.ConsumeBytes(provider.ConsumeIntInRange(0, 200)).strip()))
    target = b"/" + provider.ConsumeBytes(provider.ConsumeIntInRange(0, 40))
    head = make_head("POST", target, headers, "192.0.2.1")
    body = [provider.ConsumeBytes(provider.remaining_bytes())]
    try:
        claim = verifier.read_claim(head, NOW)
        verifier.verify(claim, head, body)
    except Rejected:
        return
    raise AssertionError("verified, though nobody signed it")


def listed() -> list[Verifier]:
    """A verifier of each kind whose signatures list what they cover, which demands little, so that much is parsed."""
    made = []
    for kind, components in (("rfc9421", ["@method"]), ("cavage", ["(request-target)"])):
        signature = {"kind": kind, "header": "Signature", "algorithms": ["hmac-sha256"], "components": components}
        scheme = Verify().read({"signature": signature, "binds_body": False})
        assert isinstance(scheme, Scheme)
        made.append(Verifier(scheme, [Secret("a", b"a key that no input can guess")], "https://hooks.example.com"))
    return made


LISTED = listed()
FIELDS = (b"Signature-Input", b"Signature", b"Content-Digest", b"X-A")


def signature(data: bytes) -> None:
    """A line for each of `FIELDS`; what follows is the body. The first byte chooses the kind."""
    verifier = LISTED[data[:1] in b"~"]
    *texts, body = (data[1:].split(b"\n", len(FIELDS)) + [b""] * len(FIELDS))[: len(FIELDS) + 1]
    headers = [(b"Host", b"hooks.example.com")]
    headers += [(name, text.replace(b"\r", b"").strip()) for name, text in zip(FIELDS, texts, strict=True) if text]
    head = make_head("POST", b"/hooks?a=1", headers, "192.0.2.1")
    try:
        claim = verifier.read_claim(head, NOW)
        verifier.verify(claim, head, [body])
    except Rejected:
        return
    raise AssertionError("verified, though nobody signed it")


def signature_seeds() -> list[bytes]:
    """Fields of the vectors of both kinds, with the times changed to `NOW`, and their bodies."""
    from published_vectors import sender  # noqa: PLC0415 - only where tests/support is on the path

    found = []
    for name, kind in (("rfc9421", b"."), ("keygen", b"~")):
        for vector in sender(name)["vectors"]:
            sent = {key.lower(): value for key, value in vector["headers"]}
            lines = [sent.get(field.decode().lower(), "").replace("\n", "") for field in FIELDS]
            fields = "\n".join(lines).replace(str(vector["now"])[:8], str(int(NOW))[:8])
            found.append(kind + f"{fields}\n{vector.get('body', '')}".encode())
    return found


#: What the fields of `signature` are made of, for mutations.
WORDS = (
    "sig1=", "(", ")", ";", ":", ",", " ", '"', "\\", "?0", "?1", ";sf", ";bs", ";req", ";tr", ';key="a"', ';name="a"', "@12", "%22",
    '"@method"', '"@target-uri"', '"@authority"', '"@scheme"', '"@request-target"', '"@path"', '"@query"', '"@query-param"',
    '"@status"', '"@signature-params"', '"content-digest"', '"content-type"', '"x-a"', ";created=1700000000", ";expires=1700000300",
    ';keyid="a"', ';alg="hmac-sha256"', ';nonce="n"', ';tag="t"', "sha-256=:", "sha-512=:", ":AAAA:", "-1", "0.1", "999999999999999",
    'keyId="a"', 'algorithm="hs2019"', 'headers="(request-target) host date"', "created=1700000000", 'signature="AAAA"',
    "(request-target)", "(created)", "(expires)",
)  # fmt: skip


def address(data: bytes) -> None:
    text = data.decode("latin-1")
    for hop in text.split(","):
        read = parse_address(hop.strip(" \t"))
        if read is not None and (bare := hop.strip(" \t")).count(":") != 1 and "[" not in bare:
            known = ipaddress.ip_address(bare)
            assert read in (known, getattr(known, "ipv4_mapped", None)), (bare, read)
    client = resolve_client("10.0.0.1", [data], TRUSTED)
    if client.unreadable:
        assert client.address is None
        return
    for hop in reversed(text.split(",")):
        read = parse_address(hop.strip(" \t"))
        assert read is not None, "an unreadable hop was passed over"
        if read not in TRUSTED:
            assert client.address == read
            return


if __name__ == "__main__":
    name = sys.argv.pop(1)
    chosen = {"scheme": scheme, "address": address, "signature": signature, **document_parsers.TARGETS}[name]
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    found = (
        signature_seeds()
        if name == "signature"
        else document_parsers.seeds(name)
        if name in document_parsers.TARGETS
        else []
    )
    with tempfile.TemporaryDirectory() as made:
        corpus = Path(made, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(found):
            (corpus / str(number)).write_bytes(seed)
        sys.argv.append(str(corpus))
        if name == "signature":
            words = Path(made, "words")
            words.write_text("".join(f"{json.dumps(word)}\n" for word in WORDS))
            sys.argv.append(f"-dict={words}")
        atheris.Setup(sys.argv, chosen)
        atheris.Fuzz()
