"""Why the shared replay store is unavailable, in our own words.

Neither the client's text nor the server's is ever shown: Redis 5 repeats the arguments of a command that it doesn't know, the
password of HELLO among them, and a malicious server can say what it wants.
"""

import errno
import os
import re
import socket
import ssl

#: By the name of redis-py's exception, or by the first word of the server's reply.
_REPLIES = {
    "AuthenticationError": "the server rejected the credentials; check `password` and the user in the URL",
    "AuthenticationWrongNumberOfArgsError": "the server doesn't know this form of authentication; is it older than Redis 6?",
    "AuthorizationError": "the server rejected the credentials",
    "BusyLoadingError": "the server is still loading its data",
    "MaxConnectionsError": "the server accepts no more connections",
    "NoPermissionError": "the user lacks a permission; docs/replay.md lists the commands",
    "OutOfMemoryError": "the server is out of memory",
    "ReadOnlyError": "the server is a read-only replica; use the address of the primary",
    "MasterDownError": "the replica has lost its primary",
    "ClusterDownError": "the cluster is down",
    "ClusterCrossSlotError": "the server is part of a cluster; write redis+cluster:// in `replay_store`",
    "MovedError": "the server is part of a cluster; write redis+cluster:// in `replay_store`",
    "AskError": "the server is part of a cluster; write redis+cluster:// in `replay_store`",
    "NoClusterError": "the server is not part of a cluster; write redis:// in `replay_store`",
    "PrimaryChangedError": "another server has become the primary; the next attempt uses it",
    "UnknownPrimaryError": "no sentinel knows the primary; check their addresses and its name in `replay_store`",
    "TimeoutError": "the server did not respond in time",
    "NOAUTH": "the server requires a password; set `password`",
    "WRONGPASS": "the server rejected the credentials; check `password` and the user in the URL",
    "NOPERM": "the user lacks a permission; docs/replay.md lists the commands",
    "READONLY": "the server is a read-only replica; use the address of the primary",
    "OOM": "the server is out of memory",
    "LOADING": "the server is still loading its data",
    "MISCONF": "the server can't save its data, and accepts no changes",
    "NOREPLICAS": "the server has too few replicas to accept changes",
    "BUSY": "the server is busy with a script",
    "unknown": "the server doesn't know a command; Redis 6 or newer is needed",
}
_ERROR_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,60}")


def describe_error(error: BaseException) -> str:
    """The kind of `error`, and more words where they are known; nothing of its text."""
    name = type(error).__name__
    words = _REPLIES.get(name) or _describe_cause(error) or _describe_reply(error)
    return f"{name}: {words}"


def _describe_cause(error: BaseException) -> str:
    """The error of the operating system or of TLS, from the exceptions that led to this one."""
    seen: BaseException | None = error
    for _ in range(5):
        if isinstance(seen, ssl.SSLError):
            reason = getattr(seen, "reason", "")
            return f"TLS failed ({reason})" if _ERROR_NAME.fullmatch(reason) else "TLS failed"
        if isinstance(seen, socket.gaierror):
            return "the host's name can't be resolved"
        if isinstance(seen, OSError) and seen.errno is not None and seen.errno in errno.errorcode:
            return os.strerror(seen.errno).lower()
        if seen is None:
            break
        seen = seen.__cause__ or seen.__context__
    return ""


def _describe_reply(error: BaseException) -> str:
    code = str(error).removeprefix("ERR ").partition(" ")[0]
    return _REPLIES.get(code, "the connection failed, or the server's reply was not understood")
