"""Home, search, history, and the audit that a person asks for."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations import words
from allocations.errors import PortError
from allocations.models import Audit, Event, Listener, PortAllocation, Project
from allocations.pages import caller_of, done, door, page, paged, ports_of, wants_fragment, without_page

CARDS_PER_PAGE = 60
MOST_FOUND = 20
MOST_TOLD = 3


@door()
def home(request: HttpRequest) -> HttpResponseBase:
    """All projects with their bars, the totals, and the last audit."""
    return page(request, "allocations/home.html", "home", _home(request))


def _home(request: HttpRequest) -> dict[str, object]:
    visible = Project.objects.visible_to(caller_of(request))
    shown = paged(request, visible, CARDS_PER_PAGE)
    # Apart: PostgreSQL would work out the usage of every project on the pages before this one, too.
    shown.object_list = visible.filter(pk__in=[project.pk for project in shown]).with_usage()
    return _totals(request) | {"projects": shown}


def _totals(request: HttpRequest) -> dict[str, object]:
    caller = caller_of(request)
    allocated = Q(status="allocated")
    totals = (
        PortAllocation.objects.visible_to(caller)
        .held()
        .aggregate(
            allocated=Count("pk", filter=allocated),
            in_use=Count("pk", filter=allocated & Q(health="up")),
            not_running=Count("pk", filter=allocated & Q(health__in=("down", "conflict"))),
            unknown=Count("pk", filter=allocated & Q(health="unknown")),
            unaudited=Count("pk", filter=allocated & Q(health__isnull=True)),
            reserved=Count("pk", filter=Q(status__in=("reserved", "pending"))),
        )
    )
    in_use, count = totals["in_use"], totals["allocated"]
    totals["health"] = (200 * in_use + count) // (2 * count) if count else 100
    totals["unallocated"] = Listener.objects.unallocated().visible_to(caller).count()
    requests = PortAllocation.objects.visible_to(caller).pending().select_related("project")[:MOST_FOUND]
    return {"requests": requests, "totals": totals, "last_audit": Audit.objects.of_everything().first()}


@door("POST", doing="audit")
def audit_now(request: HttpRequest) -> HttpResponseBase:
    """Audit, and show home as it is now."""
    report = ports_of(request).audit()
    counted = f"Audited: {report.summary.in_use} of {report.summary.allocated} services listen."
    sentence = " ".join([counted, *(finding.said_drift for finding in report.drift[:MOST_TOLD])])
    if not wants_fragment(request):
        return done(request, sentence, reverse("home"))
    messages.success(request, sentence)
    return page(request, "allocations/home.html", "home", _home(request))


@door()
def search(request: HttpRequest) -> HttpResponseBase:
    """What a person types: a project, a service, a port, or a hostname."""
    caller, text = caller_of(request), request.GET.get("q", "").strip()[:255].replace("\0", "")
    found: dict[str, object] = {"q": text}
    if text:
        held = PortAllocation.objects.visible_to(caller).held().matching(text)
        listening = Listener.objects.unallocated().visible_to(caller).matching(text)
        found |= {
            "projects": Project.objects.visible_to(caller).named(text)[:MOST_FOUND],
            "allocations": held.select_related("project")[:MOST_FOUND],
            "listeners": listening[:MOST_FOUND],
            "explanation": _explained(request, text),
        }
    return page(request, "allocations/search.html", "results", found)


def _explained(request: HttpRequest, text: str) -> object:
    """For a number, what the port is: also one that nobody holds."""
    try:
        return ports_of(request).explain(words.port_text(text))
    except PortError:  # no port: then it is a name
        return None


@door()
def events(request: HttpRequest) -> HttpResponseBase:
    """The history, newest first."""
    caller = caller_of(request)
    rows = Event.objects.visible_to(caller).with_project_name()
    project = request.GET.get("project", "")[:255].replace("\0", "")
    if project:
        rows = rows.filter(project_id__in=Project.objects.visible_to(caller).filter(name=project).values("pk"))
    context = {"events": paged(request, rows, 50), "project": project, "query": without_page(request, ["project"])}
    return page(request, "allocations/events.html", "history", context)
