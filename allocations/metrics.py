"""/metrics: the registry and the last audit for Prometheus, read from the database at every scrape.

Several workers agree, because none counts anything itself. Labels come from rows whose values have rules, so their
number is that of the rows, and prometheus-client escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseFault
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .access import Caller
from .credentials import caller_behind
from .errors import NotPermitted, PortError
from .models import Audit, Listener, PortAllocation, PortRange, Project
from .ports.refusals import refusal_of

STATES = ("up", "down", "conflict", "unknown", "unaudited", "reserved")
SERVICE = ("project", "service", "instance", "hostname", "protocol", "port")


class Registry(Collector):
    """What a caller may see of the registry, as metrics."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def collect(self) -> Iterator[Metric]:
        yield from self._ranges()
        yield self._states()
        yield from self._services()
        yield from self._audit()

    def _ranges(self) -> Iterator[Metric]:
        labels = ("project", "range")
        families = {
            "total": GaugeMetricFamily("portal_range_ports", "Ports of the range.", labels=labels),
            "held": GaugeMetricFamily("portal_range_held_ports", "Ports that are held.", labels=labels),
            "allocated": GaugeMetricFamily("portal_range_allocated_ports", "Ports that services hold.", labels=labels),
            "reserved": GaugeMetricFamily("portal_range_reserved_ports", "Ports kept for later.", labels=labels),
            "available": GaugeMetricFamily("portal_range_available_ports", "Ports that nobody holds.", labels=labels),
        }
        ratio = GaugeMetricFamily("portal_range_utilization_ratio", "Held ports of all, 0 to 1.", labels=labels)
        ranges = PortRange.objects.active().visible_to(self.caller).select_related("project").with_usage()
        for r in ranges:
            named = (r.project.name, r.range_name)
            for name, family in families.items():
                family.add_metric(named, getattr(r.usage, name))
            ratio.add_metric(named, r.usage.held / r.usage.total)
        yield from (*families.values(), ratio)

    def _states(self) -> Metric:
        family = GaugeMetricFamily(
            "portal_allocations", "Allocations, by what the last audit saw of them.", labels=("project", "state")
        )
        for project in Project.objects.visible_to(self.caller).with_usage():
            for state in STATES:
                family.add_metric((project.name, state), getattr(project.states, state))
        return family

    def _services(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("portal_service_up", "1: it listens; 0: it does not, or another does.", labels=SERVICE)
        took = GaugeMetricFamily(
            "portal_service_response_seconds", "How long the last check waited for an answer.", labels=SERVICE
        )
        used = GaugeMetricFamily("portal_service_last_used_seconds", "Unix time when it last listened.", labels=SERVICE)
        rows = PortAllocation.objects.visible_to(self.caller).allocated().select_related("project")
        for a in rows.with_response_time():
            port = (a.hostname, a.protocol, str(a.port_number))
            named = (a.project.name, a.service_name or "", str(a.instance), *port)
            if a.health in ("up", "down", "conflict"):
                up.add_metric(named, a.health == "up")
            if a.response_time_ms is not None:
                took.add_metric(named, a.response_time_ms / 1000)
            if a.last_used_at is not None:
                used.add_metric(named, a.last_used_at.timestamp())
        yield from (up, took, used)

    def _audit(self) -> Iterator[Metric]:
        strays = Listener.objects.unallocated().visible_to(self.caller).count()
        yield GaugeMetricFamily("portal_unallocated_listeners", "Listeners in ranges that no service owns.", strays)
        last = Audit.objects.of_everything().first()
        if last is None:
            return
        age = (timezone.now() - last.finished_at).total_seconds()
        yield GaugeMetricFamily("portal_last_audit_age_seconds", "Since the last audit of everything.", max(age, 0))
        if self.caller.projects is not None:
            return  # its numbers are everybody's
        result = GaugeMetricFamily("portal_last_audit_allocations", "What it found, by result.", labels=("result",))
        for name in ("allocated", "in_use", "not_running", "conflicts", "unknown"):
            result.add_metric((name,), getattr(last, name))
        yield result


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For a scraper's or an admin's token, and for anybody where anybody may look."""
    try:
        caller = caller_behind(request)
        if caller is None:
            return HttpResponse("Send a token.\n", "text/plain", 401, headers={"WWW-Authenticate": "Bearer"})
        if not caller.may_scrape:
            raise NotPermitted("Metrics take the role scraper or admin.")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Registry(caller.as_viewer()))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return HttpResponse(encode(registry), content_type)
    except PortError as refusal:
        return HttpResponse(f"{refusal.sentence}\n", "text/plain", refusal.status)
    except DatabaseFault as fault:
        known = refusal_of(fault)
        if known is None:
            raise
        return HttpResponse(f"{known.sentence}\n", "text/plain", known.status, headers={"Retry-After": "5"})
