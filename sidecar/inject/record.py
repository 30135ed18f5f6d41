"""Checks a record of changes before it is undone.

The record comes with the manifests, so anybody who can edit them can write one. Only changes that inject makes are undone, and
only to values that may have been there before: a record can't change an image, remove a security context or add an object.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from sidecar.inject.manifest import ADDED, Record, Steps
from sidecar.inject.objects import CONFIG_VOLUME, CONTAINER, SECRET_VOLUME
from sidecar.inject.workload import RECORD, KubernetesObject

_ANNOTATION: Final[Steps] = ("metadata", "annotations", RECORD)
#: As written in a manifest: a number or name of a port, or the scheme of a probe, with or without quotes.
_PORT: Final = re.compile(r"""(["']?)[A-Za-z0-9-]{1,63}\1""")
_SCHEME: Final = re.compile(r"""(["']?)HTTPS\1""")
_SECONDS: Final = re.compile("[0-9]{1,18}")
_NULLS: Final = ("", "~", "null")
_PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")


def read_record(found: KubernetesObject, text: str) -> Record:
    """The record in an object's annotation. Raises `ManifestError` for one that inject can't have written."""
    try:
        record = Record.read(text)
    except (ValueError, RecursionError):
        found.fail(
            f"the annotation {RECORD} was changed; undo the injection by hand, and remove the annotation", *_ANNOTATION
        )
    _Check(found, record).run()
    return record


def check_added(found: KubernetesObject) -> None:
    """Raises `ManifestError` unless an object marked as added can be one that inject made."""
    whole, spec = found.value(), found.value("spec")
    own = CONTAINER in found.name
    if found.kind == "ConfigMap":
        own = own and whole.keys() == {"apiVersion", "kind", "metadata", "data"}
        own = own and _keys(whole["data"]) == {"config.yaml"}
    elif found.kind == "NetworkPolicy":
        own = own and _keys(spec) == {"podSelector", "policyTypes", "ingress"} and spec["policyTypes"] == ["Ingress"]
        own = own and _keys(spec["podSelector"]) == {"matchLabels"}
    else:
        own = False
    if not own:
        found.fail(
            f"the annotation {RECORD}: {ADDED} marks it as added by inject, which adds no such object; "
            "remove the annotation, or the object",
            *_ANNOTATION,
        )


class _Check:
    def __init__(self, found: KubernetesObject, record: Record) -> None:
        self.found = found
        self.record = record
        self.paths = [*record.added, *(steps for steps, _ in record.was)]

    def run(self) -> None:
        if len(set(self.paths)) != len(self.paths):
            self._reject(next(steps for steps in self.paths if self.paths.count(steps) > 1))
        places = self._places()
        parents = {steps[:end] for steps in self.paths for end in range(1, len(steps))}
        for steps in self.record.added:
            # A parent counts only together with its added content: alone, undoing it would remove the content of others.
            if not (steps in places or (steps in parents and self._is_parent_of(steps, places))):
                self._reject(steps)
            if steps in places and not self._is_own(steps):
                self._reject(steps)
        for steps, was in self.record.was:
            if steps in parents:
                self._reject(steps)
            elif was in _NULLS and (steps in places or self._is_parent_of(steps, places)):
                if not self._is_own(steps):
                    self._reject(steps)
            elif steps not in places or not self._could_be(steps, was):
                self._reject(steps)

    def _places(self) -> set[Steps]:
        """Every path that inject may change in such an object."""
        found = self.found
        places: set[Steps] = {_ANNOTATION}
        if found.kind == "Service":
            count = len(found.items("spec", "ports"))
            return places | {("spec", "ports", index, "targetPort") for index in range(count)}
        if found.template is None:
            return places
        spec = found.spec
        places |= {(*spec, "initContainers", CONTAINER), (*spec, "terminationGracePeriodSeconds")}
        places |= {steps for steps in self.paths if steps[:-1] == (*spec, "volumes") and _is_own_volume(str(steps[-1]))}
        for item in found.items(*spec, "containers"):
            container = (*spec, "containers", str(found.document.value(item, "name")))
            places.add((*container, "lifecycle", "preStop"))
            places |= {(*container, probe, "httpGet", key) for probe in _PROBES for key in ("port", "scheme")}
        return places

    def _is_parent_of(self, steps: Steps, places: set[Steps]) -> bool:
        """Whether inject makes this mapping or list if it is absent: not a container, nor a port of a Service."""
        last = steps[-1] if steps else ""
        if last not in ("metadata", "annotations", "initContainers", "volumes", "lifecycle"):
            return False
        return any(place[: len(steps)] == steps for place in places) or (
            self.found.template is not None and steps == (*self.found.spec, "volumes")
        )

    def _is_own(self, steps: Steps) -> bool:
        """Whether the current value, if any, has the form that inject writes."""
        value, last = self.found.value(*steps), steps[-1]
        if value is None:
            return True
        if last in ("targetPort", "port", "terminationGracePeriodSeconds"):
            return isinstance(value, int)
        if last == "scheme":
            return bool(value == "HTTP")
        if last == "preStop":
            return _keys(value) == {"sleep"} and _keys(value["sleep"]) == {"seconds"}
        if last == "lifecycle":
            return _keys(value) == {"preStop"} and self._is_own((*steps, "preStop"))
        if last == "annotations":
            return _keys(value) == {RECORD}
        if last in ("initContainers", "volumes"):
            names = [item.get("name") if isinstance(item, dict) else None for item in value]
            return all(name == CONTAINER if last == "initContainers" else _is_own_volume(str(name)) for name in names)
        return steps == _ANNOTATION or CONTAINER in str(last)

    @staticmethod
    def _could_be(steps: Steps, was: str) -> bool:
        """Whether inject replaces such a value at this place."""
        pattern = {"targetPort": _PORT, "port": _PORT, "scheme": _SCHEME, "terminationGracePeriodSeconds": _SECONDS}
        return str(steps[-1]) in pattern and pattern[str(steps[-1])].fullmatch(was) is not None

    def _reject(self, steps: Sequence[str | int]) -> NoReturn:
        place = ".".join(map(str, steps))[:200] or "the whole object"
        self.found.fail(
            f"the annotation {RECORD} records a change of {place} that inject does not make; "
            "undo the injection by hand, and remove the annotation",
            *_ANNOTATION,
        )


def _is_own_volume(name: str) -> bool:
    return name == CONFIG_VOLUME or name.startswith(SECRET_VOLUME)


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()
