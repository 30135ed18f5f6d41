"""The list of all providers on the site, with a search and filters; without JavaScript it is a plain list."""

from collections import Counter
from collections.abc import Mapping
from html import escape

from provider_page import FAMILIES, Facts, facts

from sidecar.config.presets import load_preset, preset_names
from sidecar.verify.scheme import PROVEN, Evidence, Scheme

INTRODUCTION = """\
---
hide: [toc]
---

# Find a provider

There are {count} presets. Each has a page with a configuration to copy. [Providers](providers.md) explains the terms.
If yours is missing, write a [custom scheme](own-scheme.md).

"""
#: The words of `Facts`, for people.
RESENDS = {"yes": "resends", "never": "never resends", "unknown": "resends: not known"}
HANDSHAKE = {"none": "no handshake", "sidecar": "the sidecar responds", "receiver": "the receiver responds"}


def page() -> str:
    schemes = [load_preset(name) for name in preset_names()]
    found = [facts(scheme) for scheme in schemes]
    rows = "".join(map(row, schemes, found))
    return (
        INTRODUCTION.format(count=len(schemes))
        + form(schemes, found)
        + '<table class="providers">\n<thead><tr><th>provider</th><th>proof</th><th>evidence</th><th>after a failure</th>'
        + f"<th>handshake</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
        + '<script src="provider-list.js"></script>\n'
    )


def form(schemes: list[Scheme], found: list[Facts]) -> str:
    """Hidden until the script shows it, because it does nothing without the script."""
    known = list(FAMILIES.values())
    order = sorted({each.family for each in found}, key=lambda name: [*known, name].index(name))
    families = {name: sum(each.family == name for each in found) for name in order}
    kinds = Counter(scheme.evidence for scheme in schemes)
    proven = sum(kinds[kind] for kind in PROVEN)
    fields = [
        select("family", "Proof", {name: name for name in families}, families),
        select(
            "evidence",
            "Evidence",
            {"proven": "proven"} | {str(kind): str(kind) for kind in Evidence},
            kinds | {"proven": proven},
        ),
        select("resends", "After a failure", RESENDS, Counter(each.resends for each in found)),
        select("handshake", "Handshake", HANDSHAKE, Counter(each.handshake for each in found)),
    ]
    search = '<label class="search">Name <input type="search" name="q" placeholder="stripe" autocomplete="off" spellcheck="false"></label>'
    last = '<button type="reset">Clear</button>\n<p role="status"></p>'
    return "\n".join(['<form class="providers" hidden>', search, *fields, last, "</form>\n"])


def select(name: str, label: str, words: dict[str, str], counts: Mapping[str, int]) -> str:
    options = "".join(f'<option value="{value}">{text} ({counts[value]})</option>' for value, text in words.items())
    return f'<label>{label} <select name="{name}"><option value="">any</option>{options}</select></label>'


def row(scheme: Scheme, found: Facts) -> str:
    words = " ".join([scheme.name, scheme.title, *scheme.aliases]).lower()
    proof = scheme.signature.kind.summarize(scheme.signature)
    proof = escape(proof[:1].upper() + proof[1:])
    if not scheme.binds_body:
        proof += "<small>body not signed</small>"
    evidence = f"{scheme.evidence} proven" if scheme.evidence in PROVEN else scheme.evidence
    return (
        f'<tr data-words="{escape(words)}" data-family="{found.family}" data-evidence="{evidence}" '
        f'data-resends="{found.resends}" data-handshake="{found.handshake}">'
        f'<th scope="row"><a href="providers/{scheme.name}.html">{escape(scheme.title)}</a><code>{scheme.name}</code></th>'
        f"<td>{proof}</td><td>{scheme.evidence}</td><td>{RESENDS[found.resends]}</td>"
        f"<td>{HANDSHAKE[found.handshake]}</td></tr>\n"
    )
