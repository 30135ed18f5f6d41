"""The presets for people: as a list, and as YAML to copy."""

from sidecar import SHIPPED
from sidecar.config.presets import load_preset, preset_names


def preset_list() -> str:
    """A line for each preset: its name, whose it is, and what proves a delivery."""
    width = max(map(len, preset_names()))
    lines = []
    for name in preset_names():
        scheme = load_preset(name)
        lines.append(f"{name:{width}}  {scheme.title}: {scheme.summary}")
    return "\n".join(lines)


def preset_yaml(name: str) -> str:
    """The preset's file as it is: a scheme, to be put under `verify:`. Raises `KeyError` for an unknown name."""
    if name not in preset_names():
        raise KeyError(name)
    return (SHIPPED / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
