"""Dead letters in the console: the list, and the forms that retry or discard one."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient

from shared.database.connections import connect, transaction
from tests.api.ops.steps import TOKEN, cookie_of, dead, form_key, hidden_fields, status_of, submit, with_cookie
from tests.programs.api_service import ApiService


@pytest.mark.parametrize("key", ["", "forged"])
@pytest.mark.parametrize("action", ["retry", "discard"])
def test_a_form_of_another_site_changes_nothing(
    service: ApiService, operator: FlaskClient, action: str, key: str
) -> None:
    id_ = dead(service)

    answer = operator.post(f"/ops/dead-letters/{id_}/{action}", data={"reason": "x", "form_key": key})

    assert (answer.status_code, status_of(service, id_)[0]) == (403, "dead")


def test_the_form_of_another_session_changes_nothing(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    other = service.client()
    other.post("/ops/login", data={"token": TOKEN})

    answer = operator.post(f"/ops/dead-letters/{id_}/retry", data={"form_key": form_key(other)})

    assert (answer.status_code, status_of(service, id_)[0]) == (403, "dead")


def test_a_dead_letter_is_retried(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)

    assert submit(operator, f"/ops/dead-letters/{id_}/retry").status_code == 303
    assert status_of(service, id_)[0] == "pending"


def test_a_dead_letter_is_discarded_with_its_reason(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)

    assert submit(operator, f"/ops/dead-letters/{id_}/discard", reason=" ").status_code == 422
    assert submit(operator, f"/ops/dead-letters/{id_}/discard", reason="the user left").status_code == 303
    assert status_of(service, id_) == ("discarded", "discarded: the user left")


def test_of_two_operators_the_second_gets_a_conflict(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    submit(operator, f"/ops/dead-letters/{id_}/retry")

    assert submit(operator, f"/ops/dead-letters/{id_}/retry").status_code == 409


@pytest.mark.parametrize(("action", "status"), [("retry", "pending"), ("discard", "discarded")])
def test_the_same_form_sent_twice_is_carried_out_once_and_is_no_conflict(
    service: ApiService, operator: FlaskClient, action: str, status: str
) -> None:
    id_, other_id = dead(service), dead(service)
    form = {**hidden_fields(operator), "reason": "the user left"}

    answers = [operator.post(f"/ops/dead-letters/{id_}/{action}", data=form).status_code for _ in range(2)]
    another = operator.post(f"/ops/dead-letters/{other_id}/{action}", data=form).status_code
    of_somebody_else = submit(operator, f"/ops/dead-letters/{id_}/{action}", reason="x").status_code

    assert (answers, another, of_somebody_else) == ([303, 303], 303, 409)
    assert [status_of(service, each)[0] for each in (id_, other_id)] == [status] * 2


def test_a_form_whose_number_no_row_could_hold_is_carried_out(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    form = {**hidden_fields(operator), "form_id": "\0"}

    answers = [operator.post(f"/ops/dead-letters/{id_}/retry", data=form).status_code for _ in range(2)]

    assert answers == [303, 303]
    assert status_of(service, id_)[0] == "pending"


def test_the_same_form_sent_twice_at_once_is_no_conflict(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service)
    form = hidden_fields(operator)
    clients = [with_cookie(service, cookie_of(operator)) for _ in range(2)]

    with ThreadPoolExecutor(2) as threads:
        with connect(service.database_url, "test") as other, transaction(other):
            other.execute("SELECT FROM outbox WHERE id = %s FOR UPDATE", [id_])
            sent = [threads.submit(client.post, f"/ops/dead-letters/{id_}/retry", data=form) for client in clients]
            service.wait_for_a_lock(statements=2)
        statuses = [each.result(timeout=10).status_code for each in sent]

    assert (statuses, status_of(service, id_)[0]) == ([303, 303], "pending")


def test_a_dead_letter_is_listed_with_its_attempts(service: ApiService, operator: FlaskClient) -> None:
    dead(service, attempt=7, last_error="550 no such mailbox")

    page = operator.get("/ops/dead-letters").text

    assert re.search(r"<td>7</td>\s*<td>550 no such mailbox</td>", page)


def test_a_reason_is_shown_as_text(service: ApiService, operator: FlaskClient) -> None:
    dead(service, last_error="550 <script>alert(1)</script>")

    assert "550 &lt;script&gt;" in operator.get("/ops/dead-letters").text


def group_of(operator: FlaskClient, messages: int) -> str:
    """Return the id of the group that the console shows with so many dead letters."""
    found = re.search(rf"failure-groups/(\w+)/retry.*Retry all {messages}<", operator.get("/ops").text)
    assert found is not None
    return found[1]


def test_dead_letters_are_shown_in_groups(service: ApiService, operator: FlaskClient) -> None:
    for number in range(3):
        newest = dead(service, last_error=f"550 user{number} & co")

    page = operator.get("/ops/failure-groups").text

    assert re.search(r"<td>3</td>\s*<td>task:send_verify_email<br>550 \* &amp; co</td>", page)
    assert f"/ops/message?id={newest}" in page


@pytest.mark.parametrize(("action", "status"), [("retry", "pending"), ("discard", "discarded")])
def test_a_group_is_carried_out_once_and_nothing_else_is(
    service: ApiService, operator: FlaskClient, action: str, status: str
) -> None:
    ids = [dead(service, last_error=f"550 user{number}") for number in range(3)]
    other = dead(service, last_error="another reason")
    path = f"/ops/failure-groups/{group_of(operator, 3)}/{action}"
    form = {**hidden_fields(operator), "reason": "a test"}

    first = operator.post(path, data=form).status_code
    later = dead(service, last_error="550 user4")
    second = operator.post(path, data=form).status_code

    assert (first, second) == (303, 303)
    assert {status_of(service, each)[0] for each in ids} == {status}
    assert [status_of(service, each)[0] for each in (other, later)] == ["dead", "dead"]


@pytest.mark.parametrize(
    ("fields", "group", "expected"),
    [
        ({"form_key": "forged"}, None, 403),
        ({"reason": " "}, None, 422),
        ({}, "0" * 16, 409),
        ({}, "nonsense", 404),
    ],
)
def test_a_group_is_not_discarded(
    service: ApiService, operator: FlaskClient, fields: dict[str, str], group: str | None, expected: int
) -> None:
    id_ = dead(service)
    path = f"/ops/failure-groups/{group or group_of(operator, 1)}/discard"

    answer = operator.post(path, data={**hidden_fields(operator), "reason": "a test", **fields})

    assert (answer.status_code, status_of(service, id_)[0]) == (expected, "dead")


def test_a_press_changes_a_bounded_number_of_a_large_group(service: ApiService, operator: FlaskClient) -> None:
    service.sql(
        "INSERT INTO outbox (task, payload, status, attempt, last_error)"
        " SELECT 'task:t', '{}', 'dead', 1, 'no' FROM generate_series(1, 11000)"
    )
    [group] = re.findall(r"failure-groups/(\w+)/retry.*>Retry 10000<", operator.get("/ops").text)

    assert submit(operator, f"/ops/failure-groups/{group}/retry").status_code == 303
    assert service.sql("SELECT count(*) AS dead FROM outbox WHERE status = 'dead'") == [{"dead": 1000}]
