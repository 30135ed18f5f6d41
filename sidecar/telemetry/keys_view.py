"""A document of published keys, as the status page shows it."""

from typing import NamedTuple


class KeysView(NamedTuple):
    """The state of one document. Times are unix seconds."""

    source: str
    url: str  #: without the values of its query
    fetched: float | None  #: when the server last sent it; None: never
    usable: bool  #: False: deliveries that need it get 503
    next_fetch: float | None  #: None: when a delivery needs it
    keys: int
    failures: int  #: failed fetches since the last successful one
    result: str  #: of the last fetch; empty: none yet
