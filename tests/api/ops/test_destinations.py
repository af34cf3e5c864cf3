"""Destinations in the console: the list, and the forms that pause, resume and limit one."""

import re

import pytest
from flask.testing import FlaskClient

from tests.api.ops.steps import dead, hidden_fields, submit
from tests.programs.api_service import ApiService


def row(service: ApiService, name: str) -> dict[str, object] | None:
    found = service.sql(
        "SELECT paused_at IS NOT NULL AS is_paused, pause_reason, max_per_second, max_in_flight"
        "  FROM outbox_destinations WHERE name = %(name)s",
        {"name": name},
    )
    return found[0] if found else None


def test_a_destination_is_paused_and_resumed(service: ApiService, operator: FlaskClient) -> None:
    assert submit(operator, "/ops/destinations/mail/pause", reason=" ").status_code == 422
    assert submit(operator, "/ops/destinations/mail/pause", reason="<b>the move").status_code == 303

    page = operator.get("/ops/destinations").text
    assert re.search(r"paused for .*</span><br>&lt;b&gt;the move<br>", page)
    assert "/ops/destinations/mail/resume" in page

    assert submit(operator, "/ops/destinations/mail/resume").status_code == 303
    assert row(service, "mail") == {
        "is_paused": False,
        "pause_reason": None,
        "max_per_second": None,
        "max_in_flight": None,
    }


def test_a_form_that_is_sent_twice_is_carried_out_once(service: ApiService, operator: FlaskClient) -> None:
    form = {**hidden_fields(operator), "reason": "the move"}

    first = operator.post("/ops/destinations/mail/pause", data=form).status_code
    service.sql("UPDATE outbox_destinations SET paused_at = NULL, pause_reason = NULL")
    second = operator.post("/ops/destinations/mail/pause", data=form).status_code

    assert (first, second) == (303, 303)
    assert row(service, "mail") == {
        "is_paused": False,
        "pause_reason": None,
        "max_per_second": None,
        "max_in_flight": None,
    }


def test_a_pause_is_never_one_that_resume_does_not_end(service: ApiService, operator: FlaskClient) -> None:
    assert submit(operator, "/ops/destinations/mail/pause", reason=" disabled: the move").status_code == 422

    found = row(service, "mail")
    assert found is None or not found["is_paused"]


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ({"per_second": "0.1", "in_flight": "3"}, (0.1, 3)),
        ({"per_second": " 5 ", "in_flight": ""}, (5, None)),
        ({"per_second": "", "in_flight": "1000"}, (None, 1000)),
        ({}, (None, None)),
    ],
)
def test_a_limit_is_set_or_removed(
    service: ApiService, operator: FlaskClient, fields: dict[str, str], limits: tuple[float | None, int | None]
) -> None:
    service.sql("UPDATE outbox_destinations SET max_per_second = 7, max_in_flight = 7 WHERE name = 'mail'")

    assert submit(operator, "/ops/destinations/mail/limit", **fields).status_code == 303
    found = row(service, "mail")

    assert found is not None
    assert (found["max_per_second"], found["max_in_flight"]) == limits


@pytest.mark.parametrize(
    "fields",
    [
        {"per_second": "0"},
        {"per_second": "1000001"},
        {"per_second": "nan"},
        {"per_second": "five"},
        {"in_flight": "0"},
        {"in_flight": "1.5"},
        {"in_flight": "1000000"},
    ],
)
def test_a_limit_out_of_range_is_refused(service: ApiService, operator: FlaskClient, fields: dict[str, str]) -> None:
    assert submit(operator, "/ops/destinations/mail/limit", **fields).status_code == 422


@pytest.mark.parametrize("action", ["pause", "resume", "limit"])
def test_a_form_of_another_site_changes_nothing(service: ApiService, operator: FlaskClient, action: str) -> None:
    data = {"form_key": "forged", "reason": "x", "per_second": "1"}

    assert operator.post(f"/ops/destinations/new/{action}", data=data).status_code == 403
    assert row(service, "new") is None


def test_a_name_that_no_destination_can_have_is_not_found(service: ApiService, operator: FlaskClient) -> None:
    assert submit(operator, "/ops/destinations/Mail/pause", reason="x").status_code == 404


def test_a_disabled_endpoint_has_no_button_and_is_not_resumed(service: ApiService, operator: FlaskClient) -> None:
    service.sql(
        "INSERT INTO outbox_destinations (name, paused_at, pause_reason) VALUES ('webhook:7', now(), 'disabled: 410')"
    )

    page = operator.get("/ops/destinations").text

    assert "disabled for" in page
    assert not re.search("webhook:7/(pause|resume)", page)
    assert submit(operator, "/ops/destinations/webhook:7/resume").status_code == 409


def test_messages_of_unnamed_destinations_are_shown_without_a_form(service: ApiService, operator: FlaskClient) -> None:
    dead(service, status="pending", destination=None)

    page = operator.get("/ops").text

    assert re.search(r"<td>other</td>\s*<td>1 pending", page)
    assert "/ops/destinations/other/" not in page
