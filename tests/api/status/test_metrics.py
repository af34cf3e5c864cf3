"""The API's /metrics."""

from pathlib import Path

from embedded.programs.ports import free_port
from tests.operations.scraping import samples, value
from tests.programs.api_service import ALICE, api_service
from tests.programs.gunicorn import gunicorn
from tests.programs.preloading import Preloaded


def test_requests_are_counted_by_route_and_status(database_url: str) -> None:
    with api_service(database_url) as service:
        service.sign_up()
        service.sign_up(password="another horse")  # noqa: S106
        service.client().get("/v1/nowhere/one")
        service.client().get("/v1/nowhere/two")
        service.client().open("/healthz", method="BREW")

        found = samples(service.client().get("/metrics").text)

    assert value(found, "http_requests_total", method="POST", route="/v1/users", status="201") == 1
    assert value(found, "http_requests_total", method="POST", route="/v1/users", status="409") == 1
    assert value(found, "http_requests_total", method="GET", route="none", status="404") == 2
    assert value(found, "http_requests_total", method="other", route="none", status="405") == 1
    assert value(found, "http_request_seconds_count", route="/v1/users") == 2


def test_a_scrape_of_the_api_shows_that_no_relay_runs(database_url: str) -> None:
    with api_service(database_url) as service:
        service.sign_up()

        found = samples(service.client().get("/metrics").text)

    assert value(found, "outbox_relays_alive") == 0
    assert value(found, "outbox_relay_seen_seconds") == float("inf")
    assert value(found, "outbox_messages", status="pending", queue="critical") == 1
    assert value(found, "outbox_mail_server_away_seconds") == 0


def test_a_scrape_without_postgresql_says_so() -> None:
    with api_service(f"postgresql://postgres@127.0.0.1:{free_port()}/x") as service:
        answer = service.client().get("/metrics")

    assert (answer.status_code, value(samples(answer.text), "outbox_postgresql_up")) == (200, 0)


def test_a_scrape_adds_up_what_all_processes_of_gunicorn_counted(
    api_origin: Preloaded, database_url: str, tmp_path: Path
) -> None:
    with gunicorn(api_origin, database_url, tmp_path / "gunicorn.log") as client:
        client.post("/v1/users", json=ALICE)
        for _ in range(30):
            # A connection of its own each time, so that both processes get some.
            client.get("/v1/nowhere", headers={"Connection": "close"})

        scrapes = [samples(client.get("/metrics", headers={"Connection": "close"}).text) for _ in range(6)]

    for found in scrapes:
        assert value(found, "http_requests_total", method="GET", route="none", status="404") == 30
        assert value(found, "http_requests_total", method="POST", route="/v1/users", status="201") == 1
