"""Signatures made by other programs, as a provider or a customer would make them, are accepted.

The secret goes in by the environment, the body by a file; what is printed is the header's value.
"""

import subprocess
from pathlib import Path

import pytest
from craft import Craft
from needs import needs
from receiver import Receiver
from sidecar_process import Sidecar

SECRET = "CANARY-SECRET-begini-current-7f3a"
BODY = b'{"name":"Zo\xc3\xab","mark":"CANARY-BODY-5e1d","quote":"\\"","n":1.50}\n'
PROGRAMS = {
    "python3": (
        "import hmac,os,sys;"
        "print(hmac.new(os.environ['KEY'].encode(),open(sys.argv[1],'rb').read(),'sha512').hexdigest())"
    ),
    "node": (
        "const c=require('crypto'),f=require('fs');"
        "console.log(c.createHmac('sha512',process.env.KEY).update(f.readFileSync(process.argv[1])).digest('hex'))"
    ),
    "php": "echo hash_hmac('sha512', file_get_contents($argv[1]), getenv('KEY'));",
    "perl": (
        "use Digest::SHA 'hmac_sha512_hex'; local $/; open my $f, '<:raw', $ARGV[0]; print hmac_sha512_hex(<$f>, $ENV{KEY});"
    ),
    "ruby": "require 'openssl'; puts OpenSSL::HMAC.hexdigest('SHA512', ENV['KEY'], File.binread(ARGV[0]))",
}
FLAGS = {"python3": "-c", "node": "-e", "php": "-r", "perl": "-e", "ruby": "-e"}


def accepted(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], made: bytes) -> None:
    assert len(made) == 128, made
    craft.sent(made)
    raw = craft.request(headers=[(b"X-Signature", made)], body=BODY)
    assert sidecar.ask(raw).status == 200
    assert receiver.requests[0].body == BODY
    sidecar.refused(raw.replace(b"1.50", b"1.5 "), 403, "signature_mismatch", receiver=receiver)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signature_made_by_another_language_is_accepted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], tmp_path: Path, program: str
) -> None:
    needs(program)
    body = tmp_path / "body"
    body.write_bytes(BODY)
    made = subprocess.run(
        [program, FLAGS[program], PROGRAMS[program], str(body)],
        env={"KEY": SECRET, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    accepted(sidecar, receiver, craft, made.stdout.strip())


def test_a_signature_made_by_openssl_is_accepted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    needs("openssl")
    body = tmp_path / "body"
    body.write_bytes(BODY)
    made = subprocess.run(
        ["openssl", "dgst", "-sha512", "-hmac", SECRET, "-r", str(body)], capture_output=True, check=True
    )
    accepted(sidecar, receiver, craft, made.stdout.split()[0])
