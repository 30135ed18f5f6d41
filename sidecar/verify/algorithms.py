"""Hash functions that schemes name in `algorithm:`."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final


class Algorithm(StrEnum):
    """Hash function."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


#: Digest sizes in bytes.
DIGEST_SIZES: Final = {Algorithm.SHA1: 20, Algorithm.SHA256: 32, Algorithm.SHA384: 48, Algorithm.SHA512: 64}
#: The functions that begin a hash.
HASHES: Final[dict[Algorithm, Any]] = {algorithm: getattr(hashlib, algorithm.value) for algorithm in Algorithm}


def hash_pieces(algorithm: Algorithm, pieces: Sequence[bytes]) -> bytes:
    """The digest of a message, given in pieces."""
    hashed = HASHES[algorithm]()
    for piece in pieces:
        hashed.update(piece)
    digest: bytes = hashed.digest()
    return digest
