"""Build the map of a range, which shows the state of each of its ports as a cell."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from .models import Listener, PortAllocation, PortRange

FREE, UNALLOCATED, TAKEN = "free", "unallocated", "taken"
MAX_CELLS = 1000
MAX_NUMBERED_CELLS = 200
# Several allocations may have the same port number, on different hosts or protocols. The cell shows the worst state.
WORST_FIRST = ("conflict", "not-running", "unknown", "allocated", "listening", "pending", "reserved")


@dataclass(frozen=True, slots=True)
class Cell:
    """One port of a map, with its state, its label and the allocation that the cell links to."""

    port: int
    state: str
    label: str
    allocation: PortAllocation | None = None


@dataclass(frozen=True, slots=True)
class PortMap:
    """The cells of a range, or of a window of it if it is too large to be shown at once."""

    port_range: PortRange
    first: int
    last: int
    cells: list[Cell]

    @property
    def is_wide(self) -> bool:
        """Return True if there are too many cells to show the port number in each."""
        return len(self.cells) > MAX_NUMBERED_CELLS

    @property
    def hundreds(self) -> list[list[Cell]]:
        """Return the cells grouped by hundreds of port numbers."""
        return [list(cells) for _, cells in groupby(self.cells, key=lambda cell: cell.port // 100)]

    @property
    def is_window(self) -> bool:
        """Return True if the map shows only a part of the range."""
        return self.last - self.first + 1 < self.port_range.size

    @property
    def before(self) -> int | None:
        """Return the first port of the previous window, or None if this is the first."""
        return self.first - MAX_CELLS if self.first > self.port_range.start_port else None

    @property
    def after(self) -> int | None:
        """Return the first port of the next window, or None if this is the last."""
        return self.last + 1 if self.last < self.port_range.end_port else None


def port_map(
    port_range: PortRange,
    allocations: Iterable[PortAllocation],
    listeners: Iterable[Listener],
    port: int | None = None,
    taken: Container[int] = (),
) -> PortMap:
    """Return the map of a range.

    Args:
        port_range: the range to show.
        allocations: the allocations held in the range, on any host and protocol.
        listeners: the unallocated listeners in the range.
        port: a port that the window of a large range should include. By default, or if the port is outside the range,
            the window is at the start of the range.
        taken: ports held by projects that the user may not see.
    """
    first, last = window(port_range, port)
    allocations_by_port: dict[int, list[PortAllocation]] = {}
    for allocation in allocations:
        allocations_by_port.setdefault(allocation.port_number, []).append(allocation)
    listener_by_port = {listener.port: listener for listener in listeners}
    cells = list(_cells(range(first, last + 1), allocations_by_port, listener_by_port, taken))
    return PortMap(port_range, first, last, cells)


def window(port_range: PortRange, port: int | None = None) -> tuple[int, int]:
    """Return the first and the last port that the map of a range shows, around `port` if the range contains it."""
    start, end = port_range.start_port, port_range.end_port
    first = start + (port - start) // MAX_CELLS * MAX_CELLS if port is not None and start <= port <= end else start
    return first, min(end, first + MAX_CELLS - 1)


def _cells(
    ports: range,
    allocations_by_port: dict[int, list[PortAllocation]],
    listener_by_port: dict[int, Listener],
    taken: Container[int],
) -> Iterator[Cell]:
    for port in ports:
        if allocations := allocations_by_port.get(port):
            worst = min(allocations, key=lambda a: WORST_FIRST.index(a.state))
            summary = "; ".join(f"{a.label}, {a.state.replace('-', ' ')}" for a in allocations)
            yield Cell(port, worst.state, f"{port}: {summary}", worst)
        elif port in taken:
            yield Cell(port, TAKEN, f"{port}: taken by another project")
        elif listener := listener_by_port.get(port):
            yield Cell(port, UNALLOCATED, f"{port}: unallocated listener, {listener.process or 'unknown process'}")
        else:
            yield Cell(port, FREE, f"{port}: free")
