"""A request or response as it appeared on the wire."""


class Message:
    """The lines of a head, and the body that was read after it."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.line, *fields = head[:-4].split(b"\r\n")
        self.headers = [_split(field) for field in fields]
        self.body = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def names(self) -> list[bytes]:
        return [name for name, _ in self.headers]


def _split(field: bytes) -> tuple[bytes, bytes]:
    name, value = field.split(b": ", 1)
    return name, value
