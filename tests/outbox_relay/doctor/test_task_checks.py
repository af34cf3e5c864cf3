"""`doctor` names a task that a worker does not know."""

from uuid import uuid4

import pytest

from shared.outbox.claiming import claims
from shared.outbox.claiming.unknown_tasks import release_unknown
from tests.outbox_relay.doctor.installation import Installation, warnings
from tests.rows import add_message


@pytest.mark.parametrize(("dead_after", "destination"), [(3600, None), (3600, "crm"), (-1, None)])
def test_a_task_that_a_worker_does_not_know_is_named(
    healthy: Installation, dead_after: float, destination: str | None
) -> None:
    id_ = add_message(healthy.connection, "shop:unknown", destination=destination)
    for _ in range(2):
        taken = claims.claim(healthy.connection, [id_], uuid4(), 60)
        release_unknown(healthy.connection, taken, "unknown task: …", delay_seconds=0, dead_after_seconds=dead_after)

    assert "a worker does not know: shop:unknown" in warnings()
