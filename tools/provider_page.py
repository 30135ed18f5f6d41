"""The page of one provider on the site: a configuration to copy, and what to expect. `make site` makes one for each preset."""

import json
import re
from typing import Any, NamedTuple

from sidecar.cli.presets import read_preset
from sidecar.config.fields.number import Duration
from sidecar.config.presets import load_preset
from sidecar.config.ranges import range_names
from sidecar.config.repeat_checks import resend_response
from sidecar.secret import SecretRef
from sidecar.verify.handshake import Shape, responds_to
from sidecar.verify.keys import KeyForm
from sidecar.verify.scheme import Evidence, Scheme, Setting
from sidecar.verify.template import JsonValue

#: Lines of a preset that a page shows; those with certificates in them are longer.
LONGEST = 60
PUBLIC_URL = "https://hooks.example.com"
MEANING = {
    Evidence.PRINTED_VECTOR: "The provider's documentation or examples contain a signed delivery, which verifies.",
    Evidence.VENDOR_TEST: "The tests of the provider or its SDK contain a signed delivery, which verifies.",
    Evidence.SDK_RUN: "The provider's code (an SDK, a sample, or the sender itself) was run; it signed or accepted a delivery, which verifies.",
    Evidence.SDK_SOURCE: "The provider's code (an SDK, a sample, or the sender itself) was read, but not run.",
    Evidence.DOCUMENTATION: "The provider's documentation describes the scheme.",
    Evidence.DOCUMENTATION_COPY: "A copy of the provider's documentation or code describes the scheme.",
    Evidence.SECOND_HAND: "The whole scheme, or an essential part of it, is only known from third parties.",
}
#: The families of kinds of signature, by the start of the kind's name.
FAMILIES = {
    "hmac": "HMAC",
    "hash": "Hash",
    "token": "Token",
    "basic": "Password",
    "jwt": "JWT",
    "jws": "JWS",
    "rfc9421": "RFC9421",
    "cavage": "RFC9421",
    "rsa": "RSA",
    "ecdsa": "ECDSA",
    "ed25519": "Ed25519",
}
#: How the text of a secret is used, for somebody who copies it from the provider's page.
FORMS = {
    KeyForm.UTF8: "Copy it exactly as the provider shows it.",
    KeyForm.HEX: "The provider shows it in hex. Copy the hex; the sidecar decodes it.",
    KeyForm.BASE64: "The provider shows it in base64. Copy the base64; the sidecar decodes it.",
    KeyForm.WHSEC: "Copy it as the provider shows it, including `whsec_` if present; the sidecar decodes the base64.",
    KeyForm.WHPK: "Copy the public key as the provider shows it, including `whpk_` if present.",
    KeyForm.SHA256: "Copy it as the provider shows it; its SHA-256 is the key.",
    KeyForm.NFKD: "Copy it as the provider shows it; the sidecar normalizes its Unicode.",
    KeyForm.AFTER_COLON: "Copy it as `NAME:KEY`; the part after the first colon is the key.",
    KeyForm.SHA1_AFTER_COLON: "Copy it as `NAME:KEY`; the SHA-1 of the part after the first colon is the key.",
    KeyForm.PEM: "It is the provider's public key in PEM, not a secret.",
}


class Facts(NamedTuple):
    """The facts about a preset in the list, in one word each."""

    family: str
    resends: str  #: yes, never, unknown
    handshake: str  #: none, sidecar, receiver


def facts(scheme: Scheme) -> Facts:
    kind = scheme.signature.kind.name
    family = next((title for start, title in FAMILIES.items() if kind.startswith(start)), kind)
    resends = "unknown" if not scheme.delivery.source else "yes" if scheme.delivery.resends else "never"
    here = [responds_to(shape, None) for shape in scheme.handshake]
    return Facts(family, resends, "none" if not here else "sidecar" if all(here) else "receiver")


def clock(scheme: Scheme) -> str:
    """The signed time and its tolerance."""
    field = scheme.timestamp
    if field is None:
        return "none"
    limit = "not compared with the clock" if field.tolerance is None else f"tolerance ± {field.tolerance:g} s"
    return f"{field.place}, in {field.unit}, {limit}"


def handshake(shape: Shape) -> str:
    """How a handshake is recognized, and who responds."""
    place = shape.challenge
    marks = [f"{condition.place.name}={condition.value}" for condition in shape.conditions]
    marks += [f"{place.source} {place.name}"] if place is not None else []
    who = "the sidecar" if responds_to(shape, None) else "the receiver"
    marks += [f"body {shape.body}"] if shape.body else []
    marks += ["signed with a published secret"] if shape.published_secret else []
    token = ", with `verify_token`" if shape.needs_token else ""
    return " ".join([shape.method or "POST", *marks]) + f": {who}{token}"


# -- a configuration to copy --


def variable(scheme: Scheme) -> str:
    """The environment variable of the secret."""
    kind = scheme.signature.kind
    if scheme.key in (KeyForm.PEM, KeyForm.WHPK):
        word = "PUBLIC_KEY"
    else:
        word = "TOKEN" if kind.name == "token" else "PASSWORD" if kind.name == "basic" else "SECRET"
    name = "".join(letter if letter.isalnum() else "_" for letter in scheme.name.upper())
    return f"{word}_{name}" if name[0].isdigit() else f"{name}_{word}"


def short(scheme: Scheme) -> str:
    """The provider's name without what is in brackets after it."""
    return scheme.title.partition(" (")[0]


def path(scheme: Scheme) -> str:
    return f"/webhooks/{scheme.name}"


def must_say(scheme: Scheme) -> list[Setting]:
    """The settings that have no default, and those that are nearly always needed."""
    return [each for each in scheme.settings if each.advised or (each.default is None and not each.optional)]


def has_secrets(scheme: Scheme) -> bool:
    """Whether a route has secrets: to verify with, or to ask for keys with."""
    asks = scheme.keys is not None and any("{secret}" in value for _, value in scheme.keys.post)
    return asks or not scheme.published


def comes_with_certificate(scheme: Scheme) -> bool:
    """Whether a delivery comes with a certificate, or names one: nobody else can make those."""
    return scheme.keys is not None and (scheme.keys.certificate is not None or scheme.keys.x5c is not None)


def configuration(scheme: Scheme) -> str:
    """A whole configuration for the preset."""
    settings = must_say(scheme)
    lines = ["upstream: http://127.0.0.1:3000  # your receiver"]
    if scheme.needs_url:
        lines.append(f"public_url: {PUBLIC_URL}  # the URL that {short(scheme)} calls; it is signed")
    below = "/*" if scheme.signature.path is not None else ""
    lines += ["routes:", f"  - path: {path(scheme)}{below}"]
    if settings:
        lines += ["    verify:", f"      preset: {scheme.name}"]
        lines += [f"      {each.name}: {_value(each.example)}  # your value" for each in settings]
    else:
        lines.append(f"    verify: {scheme.name}")
    if has_secrets(scheme):
        lines += ["    secrets:", f"      - {{id: current, env: {variable(scheme)}}}"]
    if any(shape.needs_token for shape in scheme.handshake):
        lines.append("    verify_token: {env: VERIFY_TOKEN}  # the text that you enter at the provider")
    if scheme.name in range_names():
        lines.append(f'    # allow: ["preset:{scheme.name}"]  # after testing: allow only its addresses')
    if scheme.evidence == Evidence.SECOND_HAND:
        lines.append("    mode: shadow  # rejects nothing; remove this when real deliveries verify")
    return "".join(f"{line}\n" for line in lines)


def _value(example: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(example, SecretRef):
        return f"{{env: {example.env}}}" if example.env else f"{{file: {example.file}}}"
    return json.dumps(list(example) if isinstance(example, tuple) else example, ensure_ascii=False)


def send_command(scheme: Scheme) -> str | None:
    """A command that signs and sends a delivery to the configuration above; None if nobody else can sign."""
    if comes_with_certificate(scheme) or scheme.published:
        return None
    words = [f"sidecar send http://127.0.0.1:8080{path(scheme)} \\\n    --preset {scheme.name}"]
    for each in must_say(scheme):
        examples = each.example if isinstance(each.example, tuple) else (each.example,)
        words += [f"--setting {each.name}={example}" for example in examples]
    words.append("--private-key test-key.pem" if signs_with_private_key(scheme) else f"--secret env:{variable(scheme)}")
    words += [f"--public-url {PUBLIC_URL}"] if scheme.needs_url else []
    words += ["--body event.json"] if needs_event(scheme) else []
    return " ".join(words)


def needs_event(scheme: Scheme) -> bool:
    """Whether only the provider's own events can be signed, because the signed message depends on the body's content."""
    return all(
        any(isinstance(place, JsonValue) and expected for place, expected in each.when) for each in scheme.messages
    )


def signs_with_private_key(scheme: Scheme) -> bool:
    """Whether the configured key only verifies."""
    return scheme.key in (KeyForm.PEM, KeyForm.WHPK)


# -- the page --


def page(name: str) -> str:
    scheme = load_preset(name)
    parts = [
        f"# {scheme.title}",
        f"Preset `{name}`: {scheme.summary}. [{short(scheme)}'s documentation]({scheme.docs}) · [all providers](../provider-list.md)",
        *_warning(scheme),
        "## Configuration",
        f"```yaml\n{configuration(scheme)}```",
        _secret(scheme),
        *_settings(scheme),
        "## Try it",
        _try(scheme),
        "## If a delivery fails",
        *_failure(scheme),
        "## What is verified",
        _verified(scheme),
        "## The preset",
        (
            f"`sidecar presets {name}` prints this preset, which is a good start for a [custom scheme](../own-scheme.md). "
            f"To change parts of it, use `verify: {{preset: {name}, ...}}`."
        ),
        *([f"```yaml\n{text}```"] if (text := read_preset(name)).count("\n") <= LONGEST else []),
    ]
    return "\n\n".join(parts) + "\n"


def _warning(scheme: Scheme) -> list[str]:
    said = []
    if not scheme.binds_body:
        said.append("**The body is not signed.** Anyone who sees a delivery can change its body.")
    if scheme.evidence == Evidence.SECOND_HAND:
        said.append(
            "**Second-hand.** This preset has not been fully checked against the provider's documentation. Keep `mode: shadow` "
            "until real deliveries verify."
        )
    return said


def _secret(scheme: Scheme) -> str:
    if not has_secrets(scheme):
        return f"**No secret.** {short(scheme)} publishes its keys, and the sidecar fetches them: [published keys](../published-keys.md)."
    what = "public key" if signs_with_private_key(scheme) else "secret"
    known = re.findall(r"(?:^|(?<=\. ))((?:The (?:secret|key) is|Make a) .*?\.)(?= [A-Z]|$)", scheme.notes)
    chosen = any(each.startswith("Make a") for each in known)  # by the operator, not by the provider
    return " ".join(
        [
            f"**The {what}.**",
            *known,
            f"[{short(scheme)}'s documentation]({scheme.docs}) says {'more' if known else 'where to find it'}.",
            *([] if chosen else [FORMS[scheme.key]]),
            f"Set it in the variable `{variable(scheme)}`, or use `file:` instead of `env:` and put it into a file.",
        ]
    )


def _settings(scheme: Scheme) -> list[str]:
    settings = must_say(scheme)
    if not settings:
        return []
    return ["Replace these with your values:", "\n".join(f"- `{each.name}`: {each.about}" for each in settings)]


def _try(scheme: Scheme) -> str:
    name, command = short(scheme), send_command(scheme)
    exports = [f"$ export {variable(scheme)}=..."] if has_secrets(scheme) else []
    exports += [f"$ export {each.example.env}=..." for each in must_say(scheme) if isinstance(each.example, SecretRef)]
    exports += ["$ export VERIFY_TOKEN=..."] if any(shape.needs_token for shape in scheme.handshake) else []
    lines = [*exports, "$ sidecar check sidecar.yaml", "$ sidecar serve --config sidecar.yaml"]
    if command is None:
        said = (
            f"Only {name} can sign a delivery that verifies with its published keys; `sidecar send` can't. Have {name} send a test "
            "delivery, and check on the [status page](../status-page.md) whether it was accepted."
        )
    elif signs_with_private_key(scheme):
        lines.append(f"$ {command}")
        said = (
            f"Only {name} has its private key. To test the route yourself, create a key pair, add your public key to `secrets:`, "
            "run the last line in a second terminal, and remove your key again."
        )
    else:
        lines.append(f"$ {command}")
        said = f"Run the last line in a second terminal, with the same variable. It sends a delivery in the same way as {name}, and prints your receiver's response. "
        wrong = "token" if scheme.signature.kind.bearer else "signature"
        said += (
            f"With `--forged` it sends a wrong {wrong}: shadow mode still forwards it, and the log has a `shadow_reason`."
            if scheme.evidence == Evidence.SECOND_HAND
            else f"With `--forged --expect 403` it sends a wrong {wrong}."
        )
        said = f"First save an event of {name} as `event.json`. {said}" if needs_event(scheme) else said
        said = said.replace("--expect 403", f"--expect {scheme.reject.status}") if scheme.reject is not None else said
    return "```console\n" + "\n".join(lines) + f"\n```\n\n{said}"


def _failure(scheme: Scheme) -> list[str]:
    delivery, lines = scheme.delivery, []
    if not delivery.source:
        lines.append(
            f"- It is not known whether {short(scheme)} resends a failed delivery. Check [its documentation]({scheme.docs})."
        )
    else:
        lines.append(f"- **Resends:** {delivery.retries}. Source: {delivery.source}.")
    if delivery.timeout is not None:
        wait = Duration().write(delivery.timeout)
        lines.append(f"- **Timeout:** the provider waits {wait} for a response. Keep `timeouts.total` below that.")
    if not delivery.resends:
        lines.append("- **`reject: resend`** has no effect, because the provider never resends.")
        lines.append("- If no delivery may be lost, put [a queue behind the sidecar](../queue.md).")
    else:
        status = resend_response(scheme).status
        late = delivery.resend_status is not None and scheme.reject is None
        after = " After the default, 403, the provider may not resend." if late else ""
        lines.append(f"- **`reject: resend`** responds with {status} to a wrong signature.{after}")
    if scheme.reject is not None:
        lines.append(
            f"- {short(scheme)} expects status {scheme.reject.status} for a wrong signature, which is the preset's default."
        )
    rotation = ["To change the secret without losing deliveries, see [Rotate a secret](../rotation.md)."]
    return ["\n".join(lines), *(rotation if has_secrets(scheme) else [])]


def _verified(scheme: Scheme) -> str:
    ranges = f'`allow: ["preset:{scheme.name}"]`' if scheme.name in range_names() else ""
    facts = [
        ("Proof", scheme.summary),
        ("Signed message", f"`{scheme.signed}`" if not (scheme.signature.kind.bearer or scheme.token) else ""),
        ("Signed time", _time(scheme)),
        ("Delivery id", f"`{scheme.delivery_id}`" if scheme.delivery_id else ""),
        ("Handshake", "; ".join(map(handshake, scheme.handshake)) or "none"),
        ("Addresses", " ".join(filter(None, (scheme.ip_ranges, ranges)))),
        ("Notes", scheme.notes),
        ("Evidence", f"`{scheme.evidence}`. {MEANING[Evidence(scheme.evidence)]} Source: {scheme.source}"),
    ]
    return "\n".join(f"- **{name}:** {' '.join(text.split())}" for name, text in facts if text)


def _time(scheme: Scheme) -> str:
    if scheme.timestamp is not None:
        return clock(scheme)
    if scheme.token is not None:
        return "the token's own times"
    return "none: a recorded delivery stays valid; [`replay:`](../replay.md) drops copies"
