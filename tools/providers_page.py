"""Makes docs/providers.md from the preset files and docs/unsupported.yaml: `make docs`."""

from pathlib import Path

import yaml

from sidecar.config.presets import load_preset, preset_names
from sidecar.verify.scheme import Scheme

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """\
# Providers

<!-- Made by `make docs` from the preset files and docs/unsupported.yaml. Don't edit it here. -->

{count} presets: a word after `verify:`. `sidecar presets NAME` prints one as YAML, to start a [scheme of your own](own-scheme.md)
from; `verify: {{preset: NAME, ...}}` changes a part of one. Further down: [what stays out](#what-stays-out), and why.

- **proof**: what shows that the sender knows the secret, and where it stands. BODY NOT SIGNED: the body can be changed by whoever sees
  a delivery. A token is the secret itself, sent each time.
- **clock**: the signed time, and how old or early it may be. Where there is none, a recorded delivery verifies for ever: the
  receiver should ignore delivery ids that it has seen.
- **handshake**: what the provider asks once, and who answers it unless the route says `handshake: answer` or `handshake: pass`.
- **evidence**: what the description rests on. Second-hand ones were read in another project's code; try those in `mode: shadow` first.

| preset | provider | proof | clock | delivery id | handshake | to know | evidence |
|---|---|---|---|---|---|---|---|
"""
OUT = """
## What stays out

Each of these is known, and no option of a scheme describes it. Until then a route can admit its provider by address
(`verify: none` with `allow:`), and the receiver goes on verifying for itself.
"""


def clock(scheme: Scheme) -> str:
    """The signed time and its tolerance."""
    field = scheme.timestamp
    if field is None:
        return "none"
    limit = "not compared" if field.tolerance is None else f"± {field.tolerance:g} s"
    return f"{field.place}, {field.unit}, {limit}"


def handshake(scheme: Scheme) -> str:
    """What marks each handshake, and who answers it."""
    told = []
    for shape in scheme.handshake:
        place = shape.challenge
        marks = [f"{condition.place.name}={condition.value}" for condition in shape.conditions]
        marks += [f"{place.source} {place.name}"] if place is not None else []
        who = "the receiver" if shape.signed and shape.computed is None else "the sidecar"
        token = ", with `verify_token`" if shape.needs_token else ""
        told.append(" ".join([shape.method or "POST", *marks]) + f": {who}{token}")
    return "; ".join(told)


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def page() -> str:
    """The whole page."""
    lines = []
    for name in preset_names():
        scheme = load_preset(name)
        ranges = f" Addresses: {scheme.ip_ranges}" if scheme.ip_ranges else ""
        cells = [
            f"`{name}`",
            f"[{scheme.title}]({scheme.docs})",
            scheme.summary,
            clock(scheme),
            scheme.delivery_id or "",
            handshake(scheme),
            scheme.notes + ranges,
            scheme.evidence,
        ]
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    text = INTRODUCTION.format(count=len(lines)) + "\n".join(lines) + "\n" + OUT
    for group in yaml.safe_load((DOCS / "unsupported.yaml").read_text(encoding="utf-8")):
        text += f"\n### {group['group']}\n\n{group['why']} What would let it in: {group['lets_in']}\n\n"
        text += "| provider | what |\n|---|---|\n"
        for provider in group["providers"]:
            text += f"| {cell(provider['title'])} (`{provider['name']}`) | {cell(provider['what'])} |\n"
    return text


if __name__ == "__main__":
    (DOCS / "providers.md").write_text(page(), encoding="utf-8")
