"""Portal's addresses, and the yardstick: one query by primary key, the same JSON."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from allocations import payloads
from allocations.models import PortAllocation
from portal.urls import urlpatterns as portal


@csrf_exempt
@login_not_required
def yardstick(request: HttpRequest, pk: str) -> JsonResponse:
    found = PortAllocation.objects.select_related("project", "port_range").get(pk=pk)
    return JsonResponse(payloads.allocated(found))


urlpatterns = [path("yardstick/<uuid:pk>", yardstick), *portal]
