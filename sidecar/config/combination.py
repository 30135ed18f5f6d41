"""`verify: {any_of: [...]}` and `{all_of: [...]}`: several schemes on one route, each with its own secrets if it has any."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.reference import SecretReference
from sidecar.secret import SecretRef
from sidecar.verify.composite import MAX_SCHEMES, Combine
from sidecar.verify.scheme import DeliveryFacts, Scheme
from sidecar.verify.verifier import MAX_SECRETS

#: The value of `verify:` on a route without signatures.
NO_SCHEME = "none"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry. Without `secrets` it has those of the route."""

    scheme: Scheme
    secrets: tuple[SecretRef, ...] = ()


@dataclass(frozen=True)
class Combination:
    """The entries, and how they decide together."""

    combine: Combine
    members: tuple[Member, ...]

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        return tuple(member.scheme for member in self.members)

    @functools.cached_property
    def facts(self) -> Scheme:
        """The first scheme, with the facts about deliveries that hold for all of them.

        The timeout is the shortest one, deliveries are resent only if all schemes resend, and the response to rejected
        deliveries is the first that a scheme requires.
        """
        schemes = self.schemes
        facts = [scheme.delivery for scheme in schemes]
        waits = [each.timeout for each in facts if each.timeout is not None]
        combined = DeliveryFacts(
            retries=facts[0].retries,
            timeout=min(waits, default=None),
            resends=all(each.resends for each in facts),
            resend_status=next((each.resend_status for each in facts if each.resend_status is not None), None),
            source=facts[0].source,
        )
        required = next((scheme.reject for scheme in schemes if scheme.reject is not None), None)
        return replace(schemes[0], delivery=combined, reject=required)


class Entry(ValueType[Member]):
    """The name of a preset, or a scheme, perhaps with its own `secrets`."""

    title = "preset or scheme"
    secrets = Items(SecretReference(), MAX_SECRETS)

    def __init__(self, scheme: ValueType[Any]) -> None:
        self._scheme = scheme

    def read(self, value: Any) -> Member:
        mistakes = []
        refs: tuple[SecretRef, ...] = ()
        if isinstance(value, Mapping) and "secrets" in value:
            try:
                refs = self.secrets.read(value["secrets"])
            except InvalidValueError as error:
                mistakes += error.below("secrets")
            value = {key: item for key, item in value.items() if key != "secrets"}
            value = value["preset"] if list(value) == ["preset"] else value
        try:
            scheme = self._scheme.read(value)
            if not isinstance(scheme, Scheme):
                raise InvalidValueError("must be the name of a preset or a scheme; nothing else can be combined")
        except InvalidValueError as error:
            mistakes += error.mistakes
        if mistakes:
            raise InvalidValueError(mistakes)
        return Member(scheme, refs)

    def json_schema(self) -> JSONSchema:
        """Every form of `OneScheme` but `none`, and each mapping also with `secrets`."""
        secrets = self.secrets.json_schema() | {"description": "its own secrets; default: those of the route"}
        names, *mappings = self._scheme.json_schema()["anyOf"]
        forms = [{"enum": [name for name in names["enum"] if name != NO_SCHEME]}]
        forms += [form | {"properties": form["properties"] | {"secrets": secrets}} for form in mappings]
        return {"title": self.title, "anyOf": forms}


class Entries(Items[Member]):
    """At least two entries."""

    def read(self, value: Any) -> tuple[Member, ...]:
        members = super().read(value)
        if len(members) < 2:
            raise InvalidValueError("has one scheme; add another one, or write that one under `verify`")
        return members

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"minItems": 2}


def combination_section(scheme: ValueType[Any]) -> Section[Combination]:
    """`scheme` reads an entry."""
    entries = Entries(Entry(scheme), MAX_SCHEMES)
    return Section(
        None,
        {
            Combine.ANY: Key(entries, "up to four schemes, one of which must accept a delivery"),
            Combine.ALL: Key(entries, "up to four schemes, all of which must accept a delivery"),
        },
        one_of=tuple(Combine),
        example="{any_of: [gitlab, gitlab-signing-token]}",
        make=_make,
    )


def is_combination(value: Any) -> bool:
    """Whether a value under `verify:` is meant as one."""
    return isinstance(value, Mapping) and any(combine in value for combine in Combine)


def _make(given: dict[str, Any]) -> Combination:
    ((name, members),) = given.items()
    return Combination(Combine(name), members)
