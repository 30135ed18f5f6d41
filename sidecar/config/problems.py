"""Mistakes in a configuration: where each one is, and the remedy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.config.yaml_source import YamlSource

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake or warning: where it is, and the remedy."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path + ': ' if self.path else ''}{self.message}"


def format_path(path: Path) -> str:
    """`("routes", 2, "allow", 0)` → `routes[2].allow[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


class ConfigError(Exception):
    """A configuration that can't be used; `problems` holds every mistake, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Report:
    """The mistakes and warnings found in one file, with the file as written."""

    def __init__(self, source: "YamlSource") -> None:
        self._source = source
        self._wrong: set[Path] = set()
        self.warnings: list[Problem] = []

    def add(self, at: Path, message: str) -> None:
        self._wrong.add(at)
        self._source.problem(at, message)

    def add_all(self, mistakes: Iterable[tuple[Path, str]]) -> None:
        for at, message in mistakes:
            self.add(at, message)

    def warn(self, at: Path, message: str) -> None:
        self.warnings.append(Problem(self._source.file, self._source.line_of(at), format_path(at), message))

    def is_given(self, at: Path) -> bool:
        """Whether a key is in the file, valid or not."""
        *above, key = at
        value: Any = self._source.value
        for step in above:
            if isinstance(step, int):
                if not isinstance(value, list) or step >= len(value):
                    return False
                value = value[step]
            else:
                value = value.get(step) if isinstance(value, Mapping) else None
        return isinstance(value, Mapping) and key in value

    def is_wrong(self, at: Path) -> bool:
        """Whether a mistake was found in the value at `at`. Checks of several values skip such ones."""
        return any(path[: len(at)] == at for path in self._wrong)

    def value_at(self, at: Path) -> Any:
        """The value as written."""
        value: Any = self._source.value
        for step in at:
            value = value[step]
        return value

    def raise_if_wrong(self) -> None:
        """Raises `ConfigError` with every mistake."""
        if self._source.problems:
            raise ConfigError(self._source.problems)
