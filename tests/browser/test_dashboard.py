"""What users do on the dashboard, in Chromium, with real listeners."""

from __future__ import annotations

import re
import socket

import pytest
from playwright.sync_api import Page, expect

from allocations.auth.lookup import caller_for_token
from allocations.models import PortAllocation
from allocations.ports import PortManager, projects
from tests import make
from tests.browser.conftest import Complaints, Opened, log_in
from tests.users import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]
FIRST = make.FIRST


def test_log_in_and_out(opened: Opened, complaints: Complaints) -> None:
    page = opened("admin")
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login"))
    page.goto("/projects/shop")
    expect(page).to_have_url(re.compile("/login"))


def test_a_wrong_password_is_refused(opened: Opened) -> None:
    opened("admin")
    page = opened("")
    log_in(page, "admin", "wrong")
    expect(page.get_by_text("correct username and password")).to_be_visible()


def test_allocate_updates_the_bar_and_the_map(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    expect(page.get_by_text("2 of 20 held")).to_be_visible()
    page.locator("#allocate [name=service_name]").fill("worker")
    page.get_by_role("button", name="Allocate", exact=True).click()
    expect(page.get_by_text("3 of 20 held")).to_be_visible()
    expect(page.locator(".map .cell", has_text=str(FIRST + 2))).not_to_have_attribute("data-state", "free")
    expect(page.get_by_role("row").filter(has_text="worker")).to_be_visible()
    assert PortAllocation.objects.filter(service_name="worker", port_number=FIRST + 2).exists()


def test_a_refusal_is_shown_beside_its_field(opened: Opened, complaints: Complaints) -> None:
    complaints.expected = {409, 422}
    page = opened("operator")
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").fill("worker")
    page.locator("#allocate [name=port_number]").fill(str(FIRST))
    page.get_by_role("button", name="Allocate", exact=True).click()
    expect(page.get_by_text(f"{FIRST}/tcp on localhost is held by shop/web.")).to_be_visible()
    expect(page.locator("#allocate [name=service_name]")).to_have_value("worker")


def test_a_form_with_an_old_token_stays_and_can_be_sent_again(opened: Opened, complaints: Complaints) -> None:
    complaints.expected = {403}
    page = opened("operator")
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").fill("worker")
    (cookie,) = [cookie for cookie in page.context.cookies() if "csrf" in cookie["name"]]
    page.context.add_cookies([{**cookie, "value": "x" * 32}])  # as if somebody had logged in again in another tab
    button = page.get_by_role("button", name="Allocate", exact=True)
    button.click()
    expect(
        page.get_by_text("This page was older than your login, so nothing was changed. Send it again.")
    ).to_be_visible()
    expect(page.locator("#allocate [name=service_name]")).to_have_value("worker")
    button.click()
    expect(page.get_by_role("row").filter(has_text="worker")).to_be_visible()
    assert PortAllocation.objects.filter(service_name="worker").count() == 1


def end_session(page: Page) -> None:
    page.context.clear_cookies(name=re.compile("session"))


def log_in_again(page: Page) -> None:
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_a_form_sent_after_the_session_ended_is_there_again(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").fill("worker")
    page.locator("#allocate summary", has_text="More").click()
    page.locator("#allocate [name=protocol]").select_option("udp")
    end_session(page)
    page.get_by_role("button", name="Allocate", exact=True).click()
    log_in_again(page)
    expect(page.get_by_text("You were logged out before this form arrived")).to_be_visible()
    expect(page.locator("#allocate [name=service_name]")).to_have_value("worker")
    expect(page.locator("#allocate [name=protocol]")).to_be_visible()
    assert not PortAllocation.objects.filter(service_name="worker").exists()
    page.get_by_role("button", name="Allocate", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="worker")).to_be_visible()
    expect(page.get_by_text("You were logged out")).not_to_be_visible()
    assert PortAllocation.objects.get(service_name="worker").protocol == "udp"
    page.reload()
    expect(page.locator("#allocate [name=service_name]")).to_have_value("")


def test_a_form_of_its_own_page_is_there_again(opened: Opened) -> None:
    page = opened("operator")
    web = PortAllocation.objects.get(service_name="web")
    page.goto(f"/allocations/{web.pk}/edit")
    page.get_by_label("Description").fill("Mine")
    end_session(page)
    page.get_by_role("button", name="Save").click()
    log_in_again(page)
    expect(page.get_by_label("Description")).to_have_value("Mine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("You were logged out")).not_to_be_visible()
    web.refresh_from_db()
    assert web.description == "Mine"


def test_a_form_in_a_row_is_there_again(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    row = page.get_by_role("row").filter(has_text="web")
    row.get_by_role("link", name=re.compile("Edit")).or_(row.get_by_role("button", name=re.compile("Edit"))).click()
    field = f"[name=a{PortAllocation.objects.get(service_name='web').pk}-description]"
    page.locator(field).fill("Mine")
    end_session(page)
    page.get_by_role("button", name="Save").click()
    log_in_again(page)
    expect(page.locator(field)).to_have_value("Mine")


def test_a_form_that_arrived_is_not_there_again(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").fill("worker")
    page.get_by_role("button", name="Allocate", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="worker")).to_be_visible()
    end_session(page)
    page.goto("/projects/shop")
    log_in_again(page)
    expect(page.locator("#allocate [name=service_name]")).to_have_value("")


def test_a_free_cell_fills_in_its_port(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    page.locator(".map .cell", has_text=str(FIRST + 7)).click()
    expect(page.locator("#allocate [name=port_number]")).to_have_value(str(FIRST + 7))


def test_edit_in_place(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    page.get_by_role("link", name=f"Edit {FIRST}", exact=True).click()
    page.locator("tr textarea").fill("The best shop")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row").filter(has_text="The best shop")).to_be_visible()


def test_release_asks_for_confirmation_and_names_the_listener(opened: Opened) -> None:
    page = opened("operator")
    with socket.create_server(("127.0.0.1", FIRST)):
        page.goto("/projects/shop")
        page.get_by_role("link", name=f"Release {FIRST}", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("is listening there now")
        expect(page.get_by_role("dialog")).to_contain_text("python")
        page.get_by_role("link", name="Keep it").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert PortAllocation.objects.held().count() == 2
    page.get_by_role("link", name=f"Release {FIRST}", exact=True).click()
    page.get_by_role("button", name=f"Release {FIRST}").click()
    expect(page.get_by_text("1 of 20 held")).to_be_visible()
    assert PortAllocation.objects.held().count() == 1


def test_reserve_with_an_expiry(opened: Opened) -> None:
    page = opened("operator")
    page.goto("/projects/shop")
    page.get_by_text("Reserve ports").click()
    page.get_by_label("Start port").fill(str(FIRST + 10))
    page.get_by_label("End port").fill(str(FIRST + 12))
    page.get_by_label("Expires").fill("7d")
    page.get_by_role("button", name="Reserve", exact=True).click()
    expect(page.get_by_text("5 of 20 held")).to_be_visible()
    assert PortAllocation.objects.filter(status="reserved", expires_at__isnull=False).count() == 3


def test_an_audit_sees_a_listener_start_and_stop(opened: Opened) -> None:
    page = opened("operator")
    with socket.create_server(("127.0.0.1", FIRST)):
        page.get_by_role("button", name="Audit now").click()
        expect(page.get_by_text("Last audit just now")).to_be_visible()
        expect(page.get_by_text("1 listening", exact=True)).to_be_visible()
        expect(page.get_by_text("1 not running", exact=True)).to_be_visible()
    page.get_by_role("button", name="Audit now").click()
    expect(page.get_by_text("2 not running", exact=True)).to_be_visible()
    expect(page.get_by_text("1 listening", exact=True)).to_have_count(0)


def test_adopt_an_unallocated_listener(opened: Opened) -> None:
    page = opened("operator")
    with socket.create_server(("127.0.0.1", FIRST + 5)):
        page.get_by_role("button", name="Audit now").click()
        expect(page.get_by_text("Last audit just now")).to_be_visible()
        page.goto("/listeners")
        row = page.get_by_role("row").filter(has_text=str(FIRST + 5))
        row.locator("[name=service_name]").fill("legacy")
        row.get_by_role("button", name="Adopt").click()
        expect(page.get_by_text("shop/legacy")).to_be_visible()
    assert PortAllocation.objects.filter(service_name="legacy", port_number=FIRST + 5).exists()


@pytest.mark.parametrize("text", ["shop", "api", "host-7", "port"])
def test_search_as_you_type(opened: Opened, text: str) -> None:
    make.manager().allocate("shop", "far", hostname="host-7")
    page = opened("viewer")
    page.keyboard.press("/")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    box.press_sequentially(str(FIRST + 1) if text == "port" else text)
    expected = {"shop": "shop", "api": "api", "host-7": "far", "port": "api"}[text]
    expect(page.locator("#results").get_by_text(expected).first).to_be_visible()


def test_an_overlap_names_the_other_range(opened: Opened, complaints: Complaints) -> None:
    complaints.expected = {409, 422}
    page = opened("admin")
    page.goto("/ranges/add?project=shop")
    page.get_by_label("Name").fill("more")
    page.get_by_label("Start port").fill(str(FIRST + 19))
    page.get_by_label("End port").fill(str(FIRST + 30))
    page.get_by_role("button", name="Add range").click()
    expect(page.get_by_text(f"overlaps shop ({FIRST}-{FIRST + 19}) of shop")).to_be_visible()


def test_a_viewer_sees_no_controls_for_changes(opened: Opened) -> None:
    page = opened("viewer")
    page.goto("/projects/shop")
    expect(page.get_by_role("button", name="Allocate", exact=True)).to_have_count(0)
    expect(page.get_by_role("link", name=f"Release {FIRST}", exact=True)).to_have_count(0)


def test_a_user_without_a_role_sees_nothing(opened: Opened, complaints: Complaints) -> None:
    complaints.expected = {403}
    page = opened("nobody")
    expect(page.get_by_text("shop")).to_have_count(0)


def test_the_dashboard_works_with_the_keyboard_alone(opened: Opened) -> None:
    page = opened("")
    opened("operator")  # creates the user
    page.goto("/login")
    page.get_by_label("Username").focus()
    page.keyboard.type("operator")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").focus()
    page.keyboard.type("worker")
    page.keyboard.press("Enter")
    expect(page.get_by_text("3 of 20 held")).to_be_visible()


def test_the_dashboard_works_without_scripts(opened: Opened) -> None:
    page = opened("operator", scripts=False)
    page.goto("/projects/shop")
    page.locator("#allocate [name=service_name]").fill("worker")
    page.get_by_role("button", name="Allocate", exact=True).click()
    expect(page.get_by_text("3 of 20 held")).to_be_visible()
    page.get_by_role("link", name=f"Release {FIRST}", exact=True).click()
    page.get_by_role("button", name=f"Release {FIRST}").click()
    expect(page.get_by_text("2 of 20 held")).to_be_visible()
    page.goto("/")
    page.get_by_role("button", name="Audit now").click()
    expect(page.get_by_text("Last audit just now")).to_be_visible()


def test_a_token_is_created_copied_and_revoked(opened: Opened) -> None:
    page = opened("operator")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("operator", exact=True).first.click()
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Name").fill("deploy")
    page.get_by_label("Projects").select_option("shop")
    page.get_by_role("button", name="Create a token").click()
    expect(page.get_by_role("heading", name="Token deploy created")).to_be_visible()
    page.get_by_role("button", name="Copy the token").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".secret code").inner_text()
    page.reload()
    expect(page.locator(".secret")).to_have_count(0)
    page.get_by_role("link", name="Revoke deploy").click()
    page.get_by_role("button", name="Revoke the token").click()
    expect(page.get_by_role("row").filter(has_text="Revoked")).to_be_visible()


def test_an_agent_is_connected_and_its_requests_are_decided(opened: Opened) -> None:
    projects.update(make.manager().context, "shop", mode="ask")
    page = opened("operator")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("operator", exact=True).first.click()
    page.get_by_role("link", name="Connect an agent").click()
    page.get_by_role("button", name="Create a token").click()
    expect(page.get_by_role("heading", name="A token for agent of shop")).to_be_visible()
    page.get_by_role("button", name="Copy for Claude Code, HTTP").click()
    line = page.evaluate("navigator.clipboard.readText()")
    secret = re.search(r"Bearer (ptl_\w+)", line)
    assert secret is not None
    page.get_by_text("Or over stdio").first.click()
    expect(page.get_by_role("button", name="Copy for Claude Code, stdio")).to_be_visible()

    caller = caller_for_token(secret[1])
    assert caller is not None
    agent = PortManager(actor=caller.name, source="mcp", caller=caller)
    agent.get_or_allocate("shop", "worker")
    agent.get_or_allocate("shop", "another")
    page.goto("/")
    page.get_by_role("button", name="Approve shop/worker").click()
    expect(page.get_by_text(f"Approved: shop/worker has {FIRST + 2}/tcp.")).to_be_visible()
    assert agent.get_or_allocate("shop", "worker").status == "allocated"
    page.goto("/projects/shop")
    page.get_by_role("button", name="Refuse shop/another").click()
    expect(page.get_by_role("heading", name="Agents have requested")).to_have_count(0)
    expect(page.get_by_text("3 of 20 held")).to_be_visible()
