"""The URLs of the dashboard, of MCP and of the metrics."""

from django.contrib.auth import views as auth
from django.urls import path

from .mcp.transport import mcp
from .metrics import metrics
from .views import accounts, allocations, connect, home, listeners, projects, ranges, tokens

urlpatterns = [
    path("", home.index, name="home"),
    path("audit", home.audit, name="audit"),
    path("search", home.search, name="search"),
    path("events", home.events, name="events"),
    path("add-project", projects.add, name="project-add"),
    path("projects/<str:name>", projects.detail, name="project"),
    path("projects/<str:name>/allocate", projects.allocate, name="allocate"),
    path("projects/<str:name>/reserve", projects.reserve, name="reserve"),
    path("projects/<str:name>/edit", projects.edit, name="project-edit"),
    path("projects/<str:name>/delete", projects.delete, name="project-delete"),
    path("allocations/<uuid:pk>", allocations.detail, name="allocation"),
    path("allocations/<uuid:pk>/row", allocations.row, name="allocation-row"),
    path("allocations/<uuid:pk>/edit", allocations.edit, name="allocation-edit"),
    path("allocations/<uuid:pk>/release", allocations.release, name="release"),
    path("allocations/<uuid:pk>/approve", allocations.approve, name="approve"),
    path("allocations/<uuid:pk>/refuse", allocations.refuse, name="refuse"),
    path("ranges", ranges.index, name="ranges"),
    path("ranges/add", ranges.add, name="range-add"),
    path("ranges/<uuid:pk>/edit", ranges.edit, name="range-edit"),
    path("ranges/<uuid:pk>/delete", ranges.delete, name="range-delete"),
    path("listeners", listeners.index, name="listeners"),
    path("listeners/adopt", listeners.adopt, name="adopt"),
    path("connect", connect.index, name="connect"),
    path("tokens", tokens.index, name="tokens"),
    path("tokens/<uuid:pk>/revoke", tokens.revoke, name="token-revoke"),
    path("mcp", mcp, name="mcp"),
    path("metrics", metrics, name="metrics"),
    path("login", accounts.Login.as_view(), name="login"),
    path("logout", auth.LogoutView.as_view(), name="logout"),
    path("password", auth.PasswordChangeView.as_view(), name="password_change"),
    path("password/done", auth.PasswordChangeDoneView.as_view(), name="password_change_done"),
]
