"""Portal's URLs, and the yardstick: a view that returns the same JSON after one query by primary key."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from allocations.models import PortAllocation
from allocations.schemas import NewAllocation
from portal.urls import urlpatterns as portal_urls


@csrf_exempt
@login_not_required
def yardstick(request: HttpRequest, pk: str) -> JsonResponse:
    allocation = PortAllocation.objects.select_related("project", "port_range").get(pk=pk)
    return JsonResponse(NewAllocation.of(allocation).dump())


urlpatterns = [path("yardstick/<uuid:pk>", yardstick), *portal_urls]
