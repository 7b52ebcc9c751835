"""Serve metrics of the registry and the last audit to Prometheus at /metrics.

Every scrape reads the database, so that all workers report the same values. Labels are names from the registry: their
number is limited by its rows, and prometheus-client escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .auth.authentication import authenticate
from .auth.roles import Caller
from .errors import NotPermitted, PortError
from .models import Audit, Listener, PortAllocation, PortRange, Project
from .ports.db_errors import translated

STATES = ("up", "down", "conflict", "unknown", "unaudited", "reserved")
SERVICE_LABELS = ("project", "service", "instance", "hostname", "protocol", "port")
LOGIN_REQUIRED = "Authentication required. Send a token with the role scraper or admin.\n"


class RegistryCollector(Collector):
    """Collect metrics of the part of the registry that a caller may see."""

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
            "total": GaugeMetricFamily("portal_range_ports", "Ports in the range.", labels=labels),
            "held": GaugeMetricFamily(
                "portal_range_held_ports", "Held ports, including reserved and pending ones.", labels=labels
            ),
            "allocated": GaugeMetricFamily(
                "portal_range_allocated_ports", "Ports allocated to services.", labels=labels
            ),
            "reserved": GaugeMetricFamily("portal_range_reserved_ports", "Reserved ports.", labels=labels),
            "available": GaugeMetricFamily(
                "portal_range_available_ports", "Ports that nothing holds or occupies.", labels=labels
            ),
        }
        ratio = GaugeMetricFamily(
            "portal_range_utilization_ratio", "Held ports divided by all ports, 0 to 1.", labels=labels
        )
        ranges = (
            PortRange.objects.active().visible_to(self.caller).select_related("project").with_usage().with_occupied()
        )
        for r in ranges:
            values = (r.project.name, r.range_name)
            for name, family in families.items():
                family.add_metric(values, getattr(r.usage, name))
            ratio.add_metric(values, r.usage.held / r.usage.total)
        yield from (*families.values(), ratio)

    def _states(self) -> Metric:
        family = GaugeMetricFamily(
            "portal_allocations", "Allocations by state, according to the last audit.", labels=("project", "state")
        )
        for project in Project.objects.visible_to(self.caller).with_usage():
            for state in STATES:
                family.add_metric((project.name, state), getattr(project.states, state))
        return family

    def _services(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "portal_service_up",
            "1 if the service is listening on its port, 0 if it is not or another process is.",
            labels=SERVICE_LABELS,
        )
        response_time = GaugeMetricFamily(
            "portal_service_response_seconds", "Response time in the last check.", labels=SERVICE_LABELS
        )
        last_used = GaugeMetricFamily(
            "portal_service_last_used_seconds", "Unix time when the service was last seen.", labels=SERVICE_LABELS
        )
        rows = PortAllocation.objects.visible_to(self.caller).allocated().select_related("project")
        for a in rows.with_response_time():
            port = (a.hostname, a.protocol, str(a.port_number))
            values = (a.project.name, a.service_name or "", str(a.instance), *port)
            if a.health in ("up", "down", "conflict"):
                up.add_metric(values, a.health == "up")
            if a.response_time_ms is not None:
                response_time.add_metric(values, a.response_time_ms / 1000)
            if a.last_used_at is not None:
                last_used.add_metric(values, a.last_used_at.timestamp())
        yield from (up, response_time, last_used)

    def _audit(self) -> Iterator[Metric]:
        unallocated = Listener.objects.unallocated().visible_to(self.caller).count()
        yield GaugeMetricFamily(
            "portal_unallocated_listeners", "Listeners in ranges without an allocation.", unallocated
        )
        last_audit = Audit.objects.of_everything().first()
        if last_audit is None:
            return
        age = (timezone.now() - last_audit.finished_at).total_seconds()
        yield GaugeMetricFamily("portal_last_audit_age_seconds", "Seconds since the last full audit.", max(age, 0))
        if self.caller.projects is not None:
            return  # the numbers below cover all projects
        results = GaugeMetricFamily(
            "portal_last_audit_allocations", "Allocations in the last full audit, by result.", labels=("result",)
        )
        for name in ("allocated", "in_use", "not_running", "conflicts", "unknown"):
            results.add_metric((name,), getattr(last_audit, name))
        yield results


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics to callers with the role scraper or admin, and to anyone if anonymous access is enabled."""
    try:
        with translated():
            caller = authenticate(request)
            if caller is None:
                return HttpResponse(LOGIN_REQUIRED, "text/plain", 401, headers={"WWW-Authenticate": "Bearer"})
            if not caller.may_scrape:
                raise NotPermitted("Metrics require the role scraper or admin.")
            registry = CollectorRegistry(auto_describe=False)
            registry.register(RegistryCollector(caller.as_viewer()))
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
            return HttpResponse(encode(registry), content_type)
    except PortError as error:
        return HttpResponse(f"{error.sentence}\n", "text/plain", error.status, headers=error.headers)
