"""The tenants of a route: checks and reads them, and builds their verifiers."""

import os
from typing import Final

from sidecar.config.problems import Path, Report
from sidecar.config.settings import RouteSettings
from sidecar.config.tenant_files import PLACE, TenantDirectory, TenantFileSettings
from sidecar.verify.keys import key_problem
from sidecar.verify.scheme import Scheme
from sidecar.verify.tenants import Tenants, decoy_secrets

#: The most files of a directory that get a warning each.
MAX_WARNINGS: Final = 5


class TenantLoader:
    """Makes the tenants of one configuration. Routes with the same files share their content."""

    def __init__(self, report: Report, *, resolves: bool) -> None:
        """Without `resolves` no file is read."""
        self._report = report
        self._resolves = resolves
        self._directories: dict[TenantFileSettings, TenantDirectory] = {}

    @property
    def directories(self) -> tuple[TenantDirectory, ...]:
        return tuple(self._directories.values())

    def load(self, at: Path, route: RouteSettings) -> Tenants | None:
        """None for a route without tenants, or if a mistake was reported."""
        settings, scheme = route.tenant_files, route.scheme
        if not self._check(at, route) or settings is None or scheme is None:
            return None
        before, _, after = route.path.partition(PLACE)
        directory = self._directories.get(settings)
        if directory is None:
            directory = self._directories[settings] = TenantDirectory(settings)
            if self._resolves:
                self._read((*at, "secrets"), directory)
        if self._resolves:
            self._warn_of_forms((*at, "secrets"), directory, scheme)
        return Tenants(
            scheme,
            directory.store,
            before=before.encode(),
            after=after.encode(),
            header=route.tenant.lower().encode(),
            directory=settings.dir,
            decoys=decoy_secrets(scheme, os.urandom(64)) if self._resolves else (),
        )

    def _check(self, at: Path, route: RouteSettings) -> bool:
        """Whether the keys about tenants go together."""
        report = self._report
        in_path = PLACE in route.path
        if route.tenant_files is None:
            for given, where in ((in_path, "path"), (bool(route.tenant), "tenant")):
                if given and not report.is_wrong((*at, "secrets")):
                    report.add(
                        (*at, where), "names a tenant; add `secrets: {dir: DIRECTORY}` with a file for each tenant"
                    )
            return False
        if in_path and route.tenant:
            report.add((*at, "tenant"), "is already named by the path; remove one of the two")
        elif (in_path and route.path.split("/").count(PLACE) != 1) or route.path.count(PLACE) > 1:
            report.add(
                (*at, "path"), f"has {PLACE} in the wrong place; use it once, as a whole segment: /hooks/{PLACE}"
            )
        elif in_path and route.path.endswith("*"):
            report.add((*at, "path"), f"can't have both {PLACE} and a final *; write the path to its end")
        elif not in_path and not route.tenant:
            if not report.is_wrong((*at, "path")) and not report.is_wrong((*at, "tenant")):
                report.add(
                    (*at, "secrets"),
                    f"are for tenants, but nothing names the tenant; use `path: /hooks/{PLACE}` or `tenant: HEADER`",
                )
        elif route.scheme is not None and route.scheme.signature.kind.read_private_key is not None:
            has = "tokens, which can't be verified with" if route.scheme.shares_secret else "a public key, not"
            report.add((*at, "verify"), f"has {has} a secret for each tenant; use `secrets: [...]`")
        elif route.scheme is not None and route.scheme.signature.names_key:
            report.add(
                (*at, "verify"),
                "names its key in each delivery, which tenants' secrets don't know; use `secrets: [...]`",
            )
        elif route.verify_token is not None:
            report.add((*at, "verify_token"), "can't be used with tenants; remove it")
        else:
            return True
        return False

    def _read(self, at: Path, directory: TenantDirectory) -> None:
        directory.load()
        where = directory.settings.dir
        if directory.unreadable:
            self._report.add(
                (*at, "dir"),
                f"the directory {where} can't be read: {directory.unreadable}; check its path and permissions",
            )
        elif not directory.store:
            self._report.warn((*at, "dir"), f"the directory {where} has no file for any tenant yet; add one for each")
        problems = sorted(directory.problems.values())
        for problem in problems[:MAX_WARNINGS]:
            self._report.warn((*at, "dir"), f"the file {problem.file} {problem.problem}")
        if len(problems) > MAX_WARNINGS:
            self._report.warn(
                (*at, "dir"),
                f"{len(problems) - MAX_WARNINGS} more files in {where} can't be used; correct them like these",
            )
        doubts = sorted(directory.doubts.values())
        for doubt in doubts[:MAX_WARNINGS]:
            self._report.warn((*at, "dir"), f"the secret in file:{doubt.file} {doubt.problem}")
        if len(doubts) > MAX_WARNINGS:
            self._report.warn(
                (*at, "dir"), f"{len(doubts) - MAX_WARNINGS} more secrets in {where} are like these; correct them too"
            )

    def _warn_of_forms(self, at: Path, directory: TenantDirectory, scheme: Scheme) -> None:
        wrong = [
            (tenant, problem)
            for tenant, secrets in list(directory.store.items())
            for secret in secrets.listed
            if (problem := key_problem(scheme, secret))
        ]
        for tenant, problem in wrong[:MAX_WARNINGS]:
            self._report.warn((*at, "dir"), f"a secret of the tenant {tenant} {problem}")
        if len(wrong) > MAX_WARNINGS:
            self._report.warn(
                (*at, "dir"), f"{len(wrong) - MAX_WARNINGS} more secrets are not in the scheme's form; correct them too"
            )
