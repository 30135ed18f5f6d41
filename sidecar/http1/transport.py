"""Writing to a transport."""

import asyncio
from collections.abc import Sequence
from typing import Final

#: Unread body bytes held for the application before reading pauses.
HIGH_WATER: Final = 64 * 1024


def write_pieces(transport: asyncio.Transport, pieces: Sequence[bytes], size: int) -> None:
    """One write for all, about `size` bytes. Few are joined, which costs less than a gathering system call; many are not
    copied."""
    if size <= HIGH_WATER:
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)
