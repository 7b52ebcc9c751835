"""The home page, search, the history, and the audit that a person starts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations import validators
from allocations.audit import health_percentage
from allocations.auth.roles import Caller
from allocations.errors import PortError
from allocations.models import Audit, Event, Listener, PortAllocation, Project
from allocations.pages import (
    caller_of,
    context_of,
    page,
    paginate,
    paginate_by_key,
    query_string,
    redirect_with_message,
    require_role,
    wants_fragment,
)
from allocations.ports import audits, explain, hosts

CARDS_PER_PAGE = 60
EVENTS_PER_PAGE = 50
MOST_RESULTS = 20
MOST_DRIFTS = 3
# The totals that the health of an allocation counts for.
TOTALS = {"up": "in_use", "down": "not_running", "conflict": "not_running", "unknown": "unknown", None: "unaudited"}


@require_role()
def index(request: HttpRequest) -> HttpResponseBase:
    """Show all projects and how full they are, the totals, and the last audit."""
    return page(request, "allocations/home.html", "home", _overview(request))


def _overview(request: HttpRequest) -> dict[str, object]:
    visible = Project.objects.visible_to(caller_of(request))
    projects = paginate(request, visible, CARDS_PER_PAGE)
    # In a query of its own: with OFFSET, PostgreSQL would also compute the usage of the projects on earlier pages.
    projects.object_list = visible.filter(pk__in=[project.pk for project in projects]).with_usage()
    anonymous_read = settings.PORTAL_ANONYMOUS_READ and caller_of(request).may_administer
    return _totals(request) | {
        "projects": projects,
        "anonymous_read": anonymous_read,
        "unapproved_hosts": hosts.unapproved(context_of(request)),
    }


def _totals(request: HttpRequest) -> dict[str, object]:
    caller = caller_of(request)
    totals = _count_states(caller)
    totals["health"] = health_percentage(totals["in_use"], totals["not_running"], is_empty=totals["allocated"] == 0)
    totals["unallocated"] = Listener.objects.unallocated().visible_to(caller).count()
    requests = PortAllocation.objects.visible_to(caller).pending().select_related("project")[:MOST_RESULTS]
    return {"requests": requests, "totals": totals, "last_audit": Audit.objects.of_everything().first()}


def _count_states(caller: Caller) -> dict[str, Any]:
    """Return how many ports are held in which state, in one pass over them."""
    rows = PortAllocation.objects.visible_to(caller).held().order_by().values_list("status", "health")
    counts = Counter[str]()
    for status, health, count in rows.annotate(count=Count("*")):
        is_allocated = status == "allocated"
        counts["allocated" if is_allocated else "reserved"] += count
        if is_allocated:
            counts[TOTALS[health]] += count
    return {name: counts[name] for name in ("allocated", "reserved", *TOTALS.values())}


@require_role(action="audit", methods=["POST"], is_audit=True)
def audit(request: HttpRequest) -> HttpResponseBase:
    """Run an audit, and show the home page with its results."""
    report = audits.run(context_of(request))
    counts = f"Audited: {report.summary.in_use} of {report.summary.allocated} services are listening."
    message = " ".join([counts, *(finding.drift_sentence for finding in report.drift[:MOST_DRIFTS])])
    if not wants_fragment(request):
        return redirect_with_message(request, message, reverse("home"))
    messages.success(request, message)
    return page(request, "allocations/home.html", "home", _overview(request))


@require_role()
def search(request: HttpRequest) -> HttpResponseBase:
    """Search for a project, a service, a port, a host or a process."""
    caller, text = caller_of(request), request.GET.get("q", "").strip()[:255].replace("\0", "")
    context: dict[str, object] = {"q": text}
    if text:
        allocations = PortAllocation.objects.visible_to(caller).held().blocks().matching(text)
        listeners = Listener.objects.unallocated().visible_to(caller).matching(text)
        context |= {
            "projects": Project.objects.visible_to(caller).matching(text)[:MOST_RESULTS],
            "allocations": allocations.select_related("project", "reservation")[:MOST_RESULTS],
            "listeners": listeners[:MOST_RESULTS],
            "explanation": _explanation(request, text),
        }
    return page(request, "allocations/search.html", "results", context)


def _explanation(request: HttpRequest, text: str) -> explain.Explanation | None:
    """Return the explanation of the port that the text names, or None if the text is not a port."""
    try:
        return explain.explain(context_of(request), validators.parse_port_number(text))
    except PortError:
        return None


@require_role()
def events(request: HttpRequest) -> HttpResponseBase:
    """Show the history of all projects, or of the one that `?project=` names, newest first."""
    caller = caller_of(request)
    rows = Event.objects.visible_to(caller).with_project_name()
    project = request.GET.get("project", "")[:255].replace("\0", "")
    if project:
        rows = rows.filter(project_id__in=Project.objects.visible_to(caller).filter(name=project).values("pk"))
    context = {
        "events": paginate_by_key(request, rows, EVENTS_PER_PAGE),
        "project": project,
        "query": query_string(request, ["project"]),
    }
    return page(request, "allocations/events.html", "history", context)
