"""The home page, search, the history, and the audit that a person starts."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations import validators
from allocations.audit import health_percentage
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
    count = {state: n for (state,), n in PortAllocation.objects.visible_to(caller).held().count_states().items()}
    up, not_running = count.get("up", 0), count.get("down", 0) + count.get("conflict", 0)
    totals: dict[str, int | None] = {
        "allocated": sum(count.values()) - count.get("reserved", 0),
        "in_use": up,
        "not_running": not_running,
        **{state: count.get(state, 0) for state in ("unknown", "unaudited", "reserved")},
    }
    totals["health"] = health_percentage(up, not_running, is_empty=totals["allocated"] == 0)
    totals["unallocated"] = Listener.objects.unallocated().visible_to(caller).count()
    requests = PortAllocation.objects.visible_to(caller).pending().select_related("project")[:MOST_RESULTS]
    return {"requests": requests, "totals": totals, "last_audit": Audit.objects.of_everything().first()}


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
