"""Bytes that never show: a secret has an id for people and a value that only `signature.py` reveals."""


class Secret:
    """A shared secret. `repr`, `str`, equality and dumps show the id only."""

    __slots__ = ("_value", "id", "retire_by")

    def __init__(self, id: str, value: bytes, *, retire_by: float | None = None) -> None:
        """`retire_by` is the unix time by which it should no longer be in use; it is shown, and refuses nothing."""
        if not value:
            raise ValueError("a secret must not be empty")
        self.id = id
        self._value = value
        self.retire_by = retire_by

    def reveal(self) -> bytes:
        """The secret itself. Called where a MAC is keyed or a token compared, nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret(id={self.id!r}, value=<secret>)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled: its value would leave the process")
