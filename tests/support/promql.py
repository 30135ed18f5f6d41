"""Checks that a query names only things that a program exports: metrics, their labels, and the labels' values.

It parses PromQL only as far as needed: names, selectors, and the labels of `by`, `on` and the like. Only Prometheus can tell
whether a query is valid PromQL and has a result.
"""

import re
from collections.abc import Iterable, Mapping

#: The labels of each metric, and the values of each label.
Exported = Mapping[str, Mapping[str, set[str]]]

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


def exported(series: Iterable[Mapping[str, str]]) -> Exported:
    """The exports of series, given by their labels, including `__name__`."""
    found: dict[str, dict[str, set[str]]] = {}
    for labels in series:
        metric = found.setdefault(labels["__name__"], {})
        for label, value in labels.items():
            metric.setdefault(label, set()).add(value)
    return found


def unknown(query: str, known: Exported) -> list[str]:
    """A sentence for each name in a query that is not exported. Alternatives of a pattern are checked one by one."""
    problems = []
    labels = {"le"}
    for name, matchers in _SELECTOR.findall(query):
        if _MATCHER.sub("", matchers).strip():
            problems.append(f"can't be read: {{{matchers}}}")
        for label, operator, value in _MATCHER.findall(matchers):
            values = known.get(name, {}).get(label, set())
            if name in known and not values:
                problems.append(f"{name} has no label {label}")
                continue
            wanted = value.split("|") if "~" in operator else [value]
            problems += [
                f"{name} has no {label}={each!r}"
                for each in wanted
                if each not in {"", ".*", *values} and name in known
            ]
    grouped = {label.strip() for group in _GROUPING.findall(query) for label in group.split(",") if label.strip()}
    rest = _GROUPING.sub(" ", _SELECTOR.sub(r" \1 ", query))
    rest = re.sub(r"\[[^\]]*\]|\boffset\s+\S+|\"[^\"]*\"", " ", rest)
    names = set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*\b(?!\s*\()", rest)) - _WORDS
    for name in sorted(names):
        if name in known:
            labels |= known[name].keys()
        else:
            problems.append(f"there is no metric {name}")
    problems += [f"no metric here has the label {label}" for label in sorted(grouped - labels)]
    return problems
