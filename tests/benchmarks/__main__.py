"""Run benchmarks: `python -m tests.benchmarks [allocator manager audit home api compare]`."""

import sys
from collections.abc import Callable

from . import allocator, api, audit, compare, home, manager
from .harness import ROUNDS, scratch_portal

BENCHMARKS: dict[str, Callable[[], None]] = {
    "allocator": allocator.run,
    "manager": manager.run,
    "audit": audit.run,
    "home": home.run,
    "api": api.run,
    "compare": compare.run,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all of them."""
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}. Choose from {', '.join(BENCHMARKS)}.")
    print(f"Ratios of medians of {ROUNDS} interleaved rounds.")
    with scratch_portal():
        for name in names or BENCHMARKS:
            BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
