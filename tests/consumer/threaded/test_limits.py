"""A limit holds for several OutboxWorkers and a relay, also while workers are killed and started."""

import pytest

from shared.outbox.destinations import control
from tests.consumer.threaded.relaying import running_relay
from tests.consumer.threaded.service import WAIT, Service
from tests.rows import add_message
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

PER_SECOND = 20
MESSAGES = 80


def test_a_limit_is_passed_by_no_more_than_its_burst_in_any_second(service: Service) -> None:
    control.set_limit(service.connection, "mail", max_per_second=PER_SECOND, max_in_flight=None)
    first, _ = service.start(), service.start()
    ids = [add_message(service.connection) for _ in range(MESSAGES)]

    def done() -> list[float]:
        rows = service.connection.execute("SELECT extract(epoch FROM finished_at)::float8 FROM outbox_finished")
        return sorted(time for (time,) in rows.fetchall())

    with running_relay(service):
        wait_until(lambda: len(done()) > MESSAGES // 4, WAIT, "the first mails")
        first.kill()
        service.start()
        wait_until(lambda: len(done()) > MESSAGES * 3 // 4, WAIT, "most of the mails")

    times = done()
    assert max(sum(start <= time <= start + 1 for time in times) for start in times) <= PER_SECOND * 2
    assert times[-1] - times[0] > len(times) / PER_SECOND - 2
    spent = service.connection.execute(
        "SELECT DISTINCT attempt FROM outbox_messages WHERE id = ANY(%s) AND status <> 'running'", [ids]
    ).fetchall()
    assert set(spent) <= {(0,), (1,)}
