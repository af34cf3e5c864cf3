"""What the console's pages show."""

import re

from flask.testing import FlaskClient
from psycopg.types.json import Jsonb

from outbox_relay.loop.heartbeat import write_heartbeat
from shared.database.connections import connect
from tests.api.ops.steps import dead
from tests.programs.api_service import ApiService
from tests.rows import add_message, history_rows_read


def test_the_console_shows_what_is_where(service: ApiService, operator: FlaskClient) -> None:
    with connect(service.database_url, "test") as connection:
        for _ in range(3):
            add_message(connection)
        write_heartbeat(connection, "here/1")

    page = operator.get("/ops").text

    assert re.search(r"pending</span><b>3</b>\s*<div>0\.[0-9]+/s appended", page)
    assert "1 running" in page


def test_what_is_away_is_named(service: ApiService, operator: FlaskClient) -> None:
    service.sql(
        "INSERT INTO outbox_destinations (name, opened_at, probe_at) VALUES ('mail', now() - interval '5 min', now())"
    )

    page = operator.get("/ops/snapshot").text

    assert ("unreachable for 5 min" in page, ">none</span>" in page) == (True, True)


def test_a_message_s_life_is_shown(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service, last_error="550 no such mailbox")

    page = operator.get(f"/ops/message?id={id_}").text

    assert [part in page for part in ("created_at", "550 no such mailbox", "dead")] == [True] * 3
    assert [operator.get(f"/ops/message?id={wrong}").status_code for wrong in ("99", "x", "", "9" * 40)] == [404] * 4


def test_failures_with_any_keys_are_shown(service: ApiService, operator: FlaskClient) -> None:
    id_ = dead(service, failures=Jsonb([{}, {"reason": "ours"}, {"maybe_accepted": True}]))

    page = operator.get(f"/ops/message?id={id_}").text

    assert page.count("<td></td><td></td><td>") == 3
    assert ("<td>ours</td>" in page, page.count("may have accepted it")) == (True, 1)


def test_a_page_may_run_only_its_own_script_and_is_never_framed(operator: FlaskClient) -> None:
    answer = operator.get("/ops")
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)

    assert nonce is not None
    assert f'<script nonce="{nonce[1]}">' in answer.text
    assert "unsafe" not in policy
    assert ["frame-ancestors 'none'" in policy, answer.headers["Cache-Control"] == "no-store"] == [True, True]


def test_a_snapshot_reads_little_of_a_long_history(service: ApiService, operator: FlaskClient) -> None:
    service.sql(
        """
        INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries,
                                     failures, created_at, finished_at)
        SELECT n, 't', '{}', 'default', 'done', at, 0, 1, 10, '[]', at, at
          FROM generate_series(1, 60000) AS n, LATERAL (SELECT now() - n * interval '5 seconds') AS t (at)
        """
    )
    service.sql("ANALYZE outbox_finished")
    before = rows_read(service)

    for _ in range(2):
        assert operator.get("/ops/snapshot").status_code == 200

    assert rows_read(service) - before < 5000


def rows_read(service: ApiService) -> int:
    service.app.extensions["outbox-api"].engine.dispose()
    with connect(service.database_url, "test") as connection:
        return history_rows_read(connection)
