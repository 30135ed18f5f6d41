"""The applications at providers whose access tokens requests for keys need: `oauth:` of a scheme's `keys:`."""

from collections.abc import Callable, Iterator

from sidecar.config.combination import Combination
from sidecar.config.preset_settings import SettingForm
from sidecar.config.problems import Path, Report, format_path
from sidecar.config.secrets import SecretResolver
from sidecar.config.settings import FileSettings, KeyClient, RouteSettings
from sidecar.secret import SecretRef
from sidecar.verify.claim_rules import OAuthPlace
from sidecar.verify.published import ClientName
from sidecar.verify.scheme import Scheme


def load_key_clients(
    settings: FileSettings, secrets: SecretResolver, report: Report, route_name: Callable[[RouteSettings], str]
) -> tuple[KeyClient, ...]:
    """Each application once, with its secret. Reports secrets that are missing, and different ones for one application."""
    clients: list[KeyClient] = []
    known: dict[ClientName, tuple[Path, SecretRef]] = {}
    for index, route in enumerate(settings.routes):
        for verify, scheme in _schemes(("routes", index, "verify"), route):
            for place in _places(scheme):
                at = _place_of_secret(verify, scheme, report)
                name, ref = ClientName(place.token_url, place.scope, place.client_id), place.client_secret
                if name in known:
                    first, other = known[name]
                    if ref.where != other.where:
                        report.add(
                            at,
                            f"is {ref.where}, and {format_path(first)} is {other.where} for the same client_id; use one of them",
                        )
                    continue
                known[name] = at, ref
                secret = secrets.resolve(at, ref)
                if ref.optional:
                    report.add(at, "is optional, and without it no key can be fetched; remove `optional`")
                elif secret is not None:
                    clients.append(KeyClient(name, secret, scheme.name or route_name(route)))
    return tuple(clients)


def _schemes(at: Path, route: RouteSettings) -> Iterator[tuple[Path, Scheme]]:
    """The schemes of a route, each with its place in the file."""
    if isinstance(route.verify, Combination):
        for index, scheme in enumerate(route.verify.schemes):
            yield (*at, route.verify.combine, index), scheme
    elif isinstance(route.verify, Scheme):
        yield at, route.verify


def _places(scheme: Scheme) -> Iterator[OAuthPlace]:
    choices = [each.keys for each in scheme.token.claims] if scheme.token is not None else []
    for keys in (scheme.keys, *choices):
        if keys is not None and keys.oauth is not None:
            yield keys.oauth


def _place_of_secret(verify: Path, scheme: Scheme, report: Report) -> Path:
    """Where the file has the secret's reference: beside `preset`, or in the scheme."""
    for setting in scheme.settings:
        if setting.form == SettingForm.SECRET and report.is_given((*verify, setting.name)):
            return (*verify, setting.name)
    written: Path = (*verify, "keys", "oauth", "client_secret")
    return written if report.is_given(written) else verify
