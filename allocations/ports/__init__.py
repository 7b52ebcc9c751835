"""PortManager: every write to the registry, and the reads that are more than a query.

    from allocations.ports import PortManager

    ports = PortManager(actor="deploy")
    ports.get_or_allocate("consilio", "api-server", service_type="api")  # -> PortAllocation

Each method is one operation: rights, one transaction, one statement where that is possible, a PortError where it is
refused.
"""

from .allocating import Allocating
from .auditing import Auditing
from .changing import Changing
from .explaining import Explaining, Explanation
from .granting import Granting
from .importing import Imported, Importing, ImportReport
from .looking import Looking, PortSummary, RangeSummary
from .owning import Owning
from .seeding import Seeding
from .wishes import Wish, wish

__all__ = ["Explanation", "ImportReport", "Imported", "PortManager", "PortSummary", "RangeSummary", "Wish", "wish"]


class PortManager(Granting, Seeding, Importing, Owning, Allocating, Changing, Auditing, Explaining, Looking):
    """Projects, ranges, allocations, audits and tokens; see the modules of this package.

    Args:
        actor: whom the history names: a person, an agent, a script.
        source: by which door: python, shell, web, admin, api, mcp, import.
        caller: whose rights apply; without one the code that runs is trusted, as the shell is.
    """
