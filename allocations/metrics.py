"""Serve metrics of the registry and the last audit to Prometheus at /metrics.

Every scrape asks the database what has changed, so that all workers report the same values. Labels are names from the
registry: their number is limited by its rows, and prometheus-client escapes them.

A fleet has far more services than projects, and nobody wants to know each minute that each of them is up. So there are
numbers for each project and range, and series for each service that is not up; `?detail=1` adds the other services.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from django.contrib.auth.decorators import login_not_required
from django.db import connection
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
from .models import Audit, Event, Listener, PortAllocation, PortRange, Project
from .ports.db_errors import translated

STATES = ("up", "down", "conflict", "unknown", "unaudited", "reserved")
SERVICE_LABELS = ("project", "service", "instance", "hostname", "protocol", "port")
END = b"# EOF\n"  # of OpenMetrics
MOST_BUILT = 8  # texts that each worker keeps
LOGIN_REQUIRED = "Authentication required. Send a token with the role scraper or admin.\n"


class RegistryCollector(Collector):
    """Collect metrics of the part of the registry that a caller may see.

    Args:
        caller: who scrapes.
        has_detail: whether to include the services that are up.
    """

    def __init__(self, caller: Caller, *, has_detail: bool = False) -> None:
        self.caller = caller
        self.has_detail = has_detail

    def collect(self) -> Iterator[Metric]:
        yield from self._ranges()
        yield self._states()
        yield from self._services()

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
        counts = PortAllocation.objects.visible_to(self.caller).held().count_states("project")
        for pk, name in Project.objects.visible_to(self.caller).values_list("pk", "name"):
            for state in STATES:
                family.add_metric((name, state), counts[pk, state])
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
        rows = PortAllocation.objects.visible_to(self.caller).allocated()
        if not self.has_detail:
            rows = rows.filter(health__in=("down", "conflict"))
        found = rows.with_response_time().values_list(
            *("project__name", "service_name", "instance", "hostname", "protocol", "port_number"),
            *("health", "response_time_ms", "last_used_at"),
        )
        for project, service, instance, hostname, protocol, port, health, milliseconds, seen_at in found:
            values = (project, service, str(instance), hostname, protocol, str(port))
            if health in ("up", "down", "conflict"):
                up.add_metric(values, health == "up")
            if milliseconds is not None:
                response_time.add_metric(values, milliseconds / 1000)
            if seen_at is not None:
                last_used.add_metric(values, seen_at.timestamp())
        yield from (up, response_time, last_used)


class AuditCollector(Collector):
    """Collect metrics of the last audit of everything, as far as a caller may see them."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def collect(self) -> Iterator[Metric]:
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


class Registry(CollectorRegistry):
    """The registry of one collector."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(auto_describe=False)
        self.register(collector)


def _exposition(caller: Caller, accept: str, *, has_detail: bool) -> bytes:
    """Return all metrics that a caller may see, in the format that the client accepts."""
    registry = _with_detail(caller, accept) if has_detail else _without_detail(caller, accept, _changes(), _minute())
    encode, _ = choose_encoder(accept)
    return registry.removesuffix(END) + encode(Registry(AuditCollector(caller)))


def _with_detail(caller: Caller, accept: str) -> bytes:
    encode, _ = choose_encoder(accept)
    return encode(Registry(RegistryCollector(caller, has_detail=True)))


@functools.lru_cache(maxsize=MOST_BUILT)
def _without_detail(caller: Caller, accept: str, changes: tuple[object, ...], minute: int) -> bytes:
    """Return the metrics of the registry, which are built once for each change.

    Args:
        caller: who scrapes.
        accept: the header that chooses the format.
        changes: what `_changes()` returned.
        minute: reservations expire without a change, and a transaction may commit after a later one.
    """
    encode, _ = choose_encoder(accept)
    return encode(Registry(RegistryCollector(caller)))


def _changes() -> tuple[object, ...]:
    """Return a value that differs after each change of the registry, and after each audit."""
    events = Event.objects.order_by("-id").values_list("id", flat=True).first()
    audits = Audit.objects.order_by("-finished_at").values_list("id", flat=True).first()
    return (connection.settings_dict["NAME"], events, audits)


def _minute() -> int:
    return int(time.time() // 60)


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
            accept = request.headers.get("Accept", "")
            text = _exposition(caller.as_viewer(), accept, has_detail=request.GET.get("detail") == "1")
            return HttpResponse(text, choose_encoder(accept)[1])
    except PortError as error:
        return HttpResponse(f"{error.sentence}\n", "text/plain", error.status, headers=error.headers)
