"""Finds the provider that sent a delivery without the route's signature header: "looks like Stripe".

For `explain` only. On live traffic a request without a signature is usually a scanner's: diagnosing it would use up the few
diagnoses of a second, which mismatches need, and would delay its record. So no table of all presets has to be loaded or kept up
to date: only presets whose file contains the name of one of the request's headers are read.
"""

import re
from functools import cache
from typing import NamedTuple

from sidecar import SHIPPED
from sidecar.config.presets import load_preset, preset_names
from sidecar.http1.head import RequestHead
from sidecar.verify.scheme import Scheme

# fmt: off
#: A name made of these words alone is not typical of a provider, even if only one preset has it.
_GENERIC = frozenset({
    "256", "512", "auth", "authorization", "content", "ed25519", "hmac", "hmacsignature", "hook", "key",
    "primary", "request", "secondary", "secret", "sha", "sha1", "sha2", "sha256", "sha512", "signature",
    "signatures", "token", "verification", "webhook", "webhooks", "x",
})
# fmt: on
#: The first line of a preset that is another one with changes.
_CHANGED = re.compile(rb"preset: ([a-z0-9-]+)\n")


class Lookalike(NamedTuple):
    """A provider whose deliveries have this header."""

    title: str
    header: str
    presets: tuple[str, ...]

    def __str__(self) -> str:
        several = "s" if len(self.presets) > 1 else ""
        return f"{self.header} looks like {self.title}, preset{several} {', '.join(self.presets)}"


def find_other_provider(scheme: Scheme, head: RequestHead) -> Lookalike | None:
    """The provider whose signature header the request has; None if there is none, or more than one.

    A header counts if the presets of one provider alone have it, and `scheme` doesn't read it.
    """
    own = set(scheme.headers)
    found: dict[str, Lookalike] = {}
    for name, values in head.fields.items():
        if name in own or not any(values) or _GENERIC.issuperset(name.decode("latin-1").split("-")):
            continue
        signing = [preset for preset in _presets_that_mention(name) if name in _signature_headers(preset)]
        titles = {preset.title.partition(" (")[0] for preset in signing}
        if len(titles) == 1:
            (title,) = titles
            spelled = _signature_headers(signing[0])[name]
            found.setdefault(title, Lookalike(title, spelled, tuple(preset.name for preset in signing)))
    return next(iter(found.values())) if len(found) == 1 else None


def _presets_that_mention(name: bytes) -> list[Scheme]:
    return [load_preset(preset) for preset, text in _preset_texts() if name in text]


@cache
def _preset_texts() -> tuple[tuple[str, bytes], ...]:
    """The files of all presets, in lower case: 0.2 MB, read once in a few milliseconds. Parsing all would take a second."""
    return tuple((name, _text(name)) for name in preset_names())


def _text(name: str) -> bytes:
    """A preset's file, and that of the preset that it changes."""
    text = (SHIPPED / "presets" / f"{name}.yaml").read_bytes().lower()
    changed = _CHANGED.match(text)
    return text + _text(changed[1].decode()) if changed is not None else text


def _signature_headers(preset: Scheme) -> dict[bytes, str]:
    """As written in the preset, by lower-case name."""
    signature = preset.signature
    return {name.lower().encode(): name for name in (signature.header, *signature.also) if name and "{" not in name}
