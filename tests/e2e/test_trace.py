"""One trace: from the request through the outbox and the relay to the mail."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from consumer.model.results import Disposition
from consumer.stages.processor import Processor
from consumer.task.registry import load_tasks
from embedded.mail.catcher import MailCatcher
from shared.database.connections import connect
from shared.errors import SettingsError
from shared.settings.consumer import ConsumerSettings, read_consumer_settings
from shared.tracing import configuration, spans
from shared.tracing.otel import OtelTracing
from tests.programs.api_service import ALICE, api_service
from tests.programs.processes import ROOT, publish, worker_settings
from tests.rows import add_message, message

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """What this process recorded: it traces for the time of the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.use_tracing(OtelTracing(provider))
    yield exporter
    spans.use_tracing(spans.Tracing())


@pytest.fixture
def settings(
    database_url: str, redis_url: str, mailbox: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> ConsumerSettings:
    for name, value in worker_settings(database_url, redis_url, mailbox.smtp_url).items():
        monkeypatch.setenv(name, value)
    return read_consumer_settings()


def process(settings: ConsumerSettings, message_id: int) -> Disposition:
    processor = Processor(settings, load_tasks(settings.task_modules))
    try:
        return processor.process(message_id)
    finally:
        processor.close()


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_a_signup_and_its_mail_are_one_trace(
    exporter: InMemorySpanExporter, settings: ConsumerSettings, redis_url: str
) -> None:
    with api_service(settings.database_url) as service:
        service.sign_up()
    with connect(settings.database_url, "test") as connection:
        publish(connection, redis_url)
        assert process(settings, 1) is Disposition.DELIVERED
        row = message(connection, 1)

    by_name = {span.name: span for span in exporter.get_finished_spans()}
    names = ["POST /v1/users", "publish", "process task:send_verify_email", "send mail"]
    request, published, processed, sent = (by_name[name] for name in names)
    assert {span.context.trace_id for span in by_name.values() if span.context} == {int(row["traceparent"][3:35], 16)}
    assert [parent_id(span) for span in (request, published, processed, sent)] == [
        None,
        span_id(request),
        span_id(published),
        span_id(processed),
    ]
    assert published.end_time == pytest.approx(row["published_at"].timestamp() * 1e9, abs=1e6)
    assert processed.attributes == {"outbox.message_id": 1, "outbox.disposition": "delivered"}
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 201


def test_no_span_holds_an_address_or_a_link(
    exporter: InMemorySpanExporter, settings: ConsumerSettings, redis_url: str
) -> None:
    with api_service(settings.database_url) as service:
        service.sign_up()
        service.client().post(service.link(service.record()))
    with connect(settings.database_url, "test") as connection:
        publish(connection, redis_url)
    process(settings, 1)

    recorded = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert [word for word in (ALICE["email"], ALICE["username"], "secret_code") if word in recorded] == []


def test_a_failed_attempt_is_a_failed_span(exporter: InMemorySpanExporter, settings: ConsumerSettings) -> None:
    with connect(settings.database_url, "test") as connection:
        id_ = add_message(connection, payload=[], traceparent=PARENT)

    assert process(settings, id_) is Disposition.DEAD

    [span] = exporter.get_finished_spans()
    assert (span.name, span.status.status_code, span.status.description) == (
        "process task:send_verify_email",
        StatusCode.ERROR,
        None,
    )
    assert span.context is not None
    assert span.context.trace_id == int(PARENT[3:35], 16)


@pytest.mark.parametrize("traceparent", ["nonsense", "00-0-0-01", ""])
def test_a_malformed_traceparent_harms_nothing(
    exporter: InMemorySpanExporter, settings: ConsumerSettings, traceparent: str
) -> None:
    with connect(settings.database_url, "test") as connection:
        id_ = add_message(connection, payload=[], traceparent=traceparent)

    assert process(settings, id_) is Disposition.DEAD


@pytest.mark.parametrize(("proxies", "is_continued"), [(0, False), (1, True)])
def test_a_client_s_traceparent_is_believed_behind_a_trusted_proxy_alone(
    exporter: InMemorySpanExporter, database_url: str, proxies: int, *, is_continued: bool
) -> None:
    with api_service(database_url, trusted_proxies=proxies) as service:
        service.client().get("/healthz", headers={"traceparent": PARENT})

    [span] = exporter.get_finished_spans()
    assert span.context is not None
    assert (span.context.trace_id == int(PARENT[3:35], 16)) is is_continued


def test_off_nothing_is_traced_and_the_row_names_no_trace(settings: ConsumerSettings) -> None:
    with api_service(settings.database_url) as service:
        service.sign_up()
        [row] = service.sql("SELECT traceparent FROM outbox")

    assert row["traceparent"] is None


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("api", "opentelemetry"),
        # redis-py imports OpenTelemetry by itself where it is installed.
        ("consumer.jobs, consumer.threaded.outbox_worker, outbox_relay.__main__", "shared.tracing.otel"),
    ],
)
def test_off_opentelemetry_is_not_even_imported(modules: str, unwanted: str) -> None:
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('{unwanted}')])"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_wrong_value_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings_with(value: str) -> dict[str, Any]:
        monkeypatch.setenv("OUTBOX_TRACING", value)
        with pytest.raises(SettingsError) as caught:
            configuration.check_tracing()
        return caught.value.problems

    wrong = settings_with("yes")
    # The exporter alone is missing: each distribution of OpenTelemetry brings the package of that name.
    monkeypatch.delitem(sys.modules, "shared.tracing.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    assert re.search("off or otlp", str(wrong["OUTBOX_TRACING"]))
    assert re.search("requirements-tracing.lock", str(settings_with("otlp")["OUTBOX_TRACING"]))


def test_a_collector_that_does_not_answer_delays_nothing() -> None:
    answers, returned = threading.Event(), threading.Event()

    class Silent(TracerProvider):
        def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
            answers.wait(20)
            returned.set()
            return True

    OtelTracing(Silent(), flush_seconds=0.01).flush()

    assert not returned.is_set()
    answers.set()


def test_switched_on_it_sends_with_the_service_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_TRACING", "otlp")
    configuration.configure_tracing("outbox-test")
    chosen = spans.tracing()
    assert isinstance(chosen, OtelTracing)
    try:
        assert chosen.provider.resource.attributes["service.name"] == "outbox-test"
    finally:
        chosen.provider.shutdown()
        spans.use_tracing(spans.Tracing())
