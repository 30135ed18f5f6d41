"""Writes helm/dashboards/: `make docs`."""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.overview import overview
from dashboards.rotation import rotation
from dashboards.security import security

WHERE = Path(__file__).parents[2] / "helm/dashboards"


def encode_all() -> dict[str, str]:
    """The text of each file."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    dashboards = {"overview": overview(), "security": security(), "rotation": rotation()}
    return {f"{name}.json": encoder.encode(dashboard.build()) + "\n" for name, dashboard in dashboards.items()}


if __name__ == "__main__":
    for name, text in encode_all().items():
        (WHERE / name).write_text(text)
        sys.stdout.write(f"{WHERE / name}\n")
