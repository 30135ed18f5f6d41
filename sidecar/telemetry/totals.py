"""The counts of all processes that handle deliveries, added up."""

from collections.abc import Sequence

from sidecar.telemetry.metrics import (
    CODES_AT,
    EXEMPLAR_SIZE,
    EXEMPLARS_SIZE,
    LAST_USED,
    Block,
    Metrics,
    RouteCounts,
    sum_blocks,
)


class Totals:
    """Adds up the counts of several processes, or passes on those of a single one."""

    def __init__(self, parts: Sequence[Metrics]) -> None:
        """`parts` are the counts of each process."""
        self._parts = parts

    def route_names(self) -> list[str]:
        """All routes counted so far; an empty name first, for requests that no route matched."""
        return list(dict.fromkeys(name for part in self._parts for name in part.routes))

    def route(self, name: str) -> RouteCounts:
        """All counts of one route."""
        of_parts = [part.routes[name] for part in self._parts if name in part.routes]
        total = RouteCounts(sum_blocks([counts.block for counts in of_parts]))
        total.hints = any(counts.hints for counts in of_parts)
        total.handshakes = any(counts.handshakes for counts in of_parts)
        total.captures = any(counts.captures for counts in of_parts)
        total.replay = any(counts.replay for counts in of_parts)
        total.authorizes = any(counts.authorizes for counts in of_parts)
        total.exemplars = _newest_exemplars([counts.exemplars for counts in of_parts if counts.exemplars is not None])
        for secret_id in dict.fromkeys(secret_id for counts in of_parts for secret_id in counts.secrets):
            blocks = [counts.secrets[secret_id] for counts in of_parts if secret_id in counts.secrets]
            total.secrets[secret_id] = secret = sum_blocks(blocks)
            secret[LAST_USED] = max(block[LAST_USED] for block in blocks)
        return total

    def ends(self, name: str) -> Block:
        """The first counts of a route's block: how deliveries ended, shadow rejections, how questions ended."""
        return sum_blocks([part.routes[name].block[:CODES_AT] for part in self._parts if name in part.routes])

    def gauges(self) -> Block:
        """The current values of all processes together."""
        return sum_blocks([part.gauges for part in self._parts])


def _newest_exemplars(blocks: Sequence[Block]) -> Block | None:
    """For each bucket the exemplar that was written last."""
    if len(blocks) < 2:
        return list(blocks[0]) if blocks else None
    result: list[float] = []
    for place in range(0, EXEMPLARS_SIZE, EXEMPLAR_SIZE):
        candidates = [list(block[place : place + EXEMPLAR_SIZE]) for block in blocks]
        newest: list[float] = max(candidates, key=lambda exemplar: exemplar[-1])
        result += newest
    return result
