"""Packages that only some schemes need: the extras of the distribution."""

from collections.abc import Sequence
from importlib.util import find_spec

from sidecar.config.problems import Path, Report
from sidecar.verify.scheme import Scheme


def missing_extra(scheme: Scheme) -> str:
    """The problem of a scheme whose package is not installed, with the remedy; empty if there is none."""
    package, extra = scheme.signature.kind.package, scheme.signature.kind.extra
    if not package or find_spec(package) is not None:
        return ""
    return f"needs the package {package}, which is not installed; run pip install 'webhook-sidecar[{extra}]'"


def check_extra(at: Path, schemes: Sequence[Scheme], report: Report) -> None:
    problems = dict.fromkeys(problem for scheme in schemes if (problem := missing_extra(scheme)))
    if not report.is_wrong(at):
        for problem in problems:
            report.add(at, problem)
