"""The map of a range: one cell for each port, or for each block of ports where a range is large."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from .models import Listener, PortAllocation, PortRange

FREE, STRAY, TAKEN = "free", "unallocated", "taken"
MOST_CELLS = 1000
MOST_NUMBERED = 200
# Of several allocations on one port number (hosts, protocols) the one that most needs a look gives the cell its state.
WORST_FIRST = ("conflict", "not-running", "unknown", "allocated", "listening", "pending", "reserved")


@dataclass(frozen=True, slots=True)
class Cell:
    """One port of a map: what it is, and the allocation to which its link leads."""

    port: int
    state: str
    label: str
    allocation: PortAllocation | None = None


@dataclass(frozen=True, slots=True)
class PortMap:
    """The cells of a range, or of the window of it that is shown."""

    port_range: PortRange
    first: int
    last: int
    cells: list[Cell]

    @property
    def is_wide(self) -> bool:
        """Whether there are too many cells to write a number into each."""
        return len(self.cells) > MOST_NUMBERED

    @property
    def hundreds(self) -> list[list[Cell]]:
        """The cells, hundred by hundred."""
        return [list(cells) for _, cells in groupby(self.cells, key=lambda cell: cell.port // 100)]

    @property
    def is_window(self) -> bool:
        """Whether the range is larger than what is shown."""
        return self.last - self.first + 1 < self.port_range.size

    @property
    def before(self) -> int | None:
        """Where the window before this one begins."""
        return self.first - MOST_CELLS if self.first > self.port_range.start_port else None

    @property
    def after(self) -> int | None:
        """Where the window after this one begins."""
        return self.last + 1 if self.last < self.port_range.end_port else None


def port_map(
    port_range: PortRange,
    allocations: Iterable[PortAllocation],
    listeners: Iterable[Listener],
    port: int | None = None,
    taken: Container[int] = (),
) -> PortMap:
    """The map of a range.

    Args:
        allocations: what is held in it, on any host and protocol.
        listeners: the unallocated ones in it.
        port: one that the window of a large range is to show; its start, if none is given or it lies outside.
        taken: what others hold in it who are not to be named.
    """
    first, last = window(port_range, port)
    held: dict[int, list[PortAllocation]] = {}
    for allocation in allocations:
        held.setdefault(allocation.port_number, []).append(allocation)
    seen = {listener.port: listener for listener in listeners}
    return PortMap(port_range, first, last, list(_cells(range(first, last + 1), held, seen, taken)))


def window(port_range: PortRange, port: int | None = None) -> tuple[int, int]:
    """The first and the last port of a range that its map shows: those around `port`, where that lies in it."""
    start, end = port_range.start_port, port_range.end_port
    first = start + (port - start) // MOST_CELLS * MOST_CELLS if port is not None and start <= port <= end else start
    return first, min(end, first + MOST_CELLS - 1)


def _cells(
    ports: range, held: dict[int, list[PortAllocation]], seen: dict[int, Listener], taken: Container[int]
) -> Iterator[Cell]:
    for port in ports:
        if here := held.get(port):
            worst = min(here, key=lambda a: WORST_FIRST.index(a.state))
            what = "; ".join(f"{a.label}, {a.state.replace('-', ' ')}" for a in here)
            yield Cell(port, worst.state, f"{port}: {what}", worst)
        elif port in taken:
            yield Cell(port, TAKEN, f"{port}: taken by another project")
        elif listener := seen.get(port):
            yield Cell(port, STRAY, f"{port}: unallocated, {listener.process or 'an unknown process'} listens")
        else:
            yield Cell(port, FREE, f"{port}: free")
