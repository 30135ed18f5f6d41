"""TCP ports for programs that can't be told to choose one themselves."""

import socket


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on; another program can take it before it is used."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
