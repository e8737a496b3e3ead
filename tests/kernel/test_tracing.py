"""Traces: whole and of one piece where they are wanted, and nothing at all where they are not."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.kernel import queue, tracing
from app.kernel import settings as settings_module
from app.kernel.errors import ConfigurationFault
from app.kernel.settings import Settings, load_settings
from tenants.database import Database
from tests.cast import STAFF
from tests.conformance.conftest import stage201, until, yard
from tests.conformance.stage import Stage
from tests.web import CLI, found_brand
from tests.worker.test_worker import working

__all__ = ["stage201", "yard"]
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.set_up("test", endpoint=None, exporter=exporter)
    yield exporter
    tracing.shut_down()


def named(spans: InMemorySpanExporter, name: str) -> Any:
    found = [one for one in spans.get_finished_spans() if one.name == name]
    assert found, f"no {name} in {[one.name for one in spans.get_finished_spans()]}"
    return found[-1]


def trace_of(one: Any) -> str:
    return f"{one.context.trace_id:032x}"


async def test_a_message_its_verb_and_its_commit_are_one_trace(stage201: Stage, spans: InMemorySpanExporter):
    """So are a batch of the hot path, a request and what it asks of a station, each told without a card's number."""
    stage = stage201
    await stage.box.event("Started", "t1", 0, token=stage.cast.card, meter_wh=1_000)
    whole, verb = named(spans, "ocpp TransactionEvent"), named(spans, "verb")
    inside = {
        one.name for one in spans.get_finished_spans() if one.parent and one.parent.span_id == whole.context.span_id
    }  # fmt: skip
    assert inside == {"verb", "commit"} and trace_of(verb) == trace_of(whole)
    assert whole.attributes["livery.station"] == str(stage.cast.station_id)
    assert whole.attributes["livery.tenant"] == str(stage.cast.tenant_id)
    await stage.box.event("Updated", "t1", 1, meter_wh=1_100)
    assert named(spans, "ingest").attributes["livery.messages"] == 1
    stage.box.answers["ClearCache"] = {"status": "Accepted"}
    ended = await stage.ask("ClearCache", {})
    assert ended["status"] == "accepted"
    request = named(spans, "POST /api/v1/stations/{station_id}/commands")
    assert request.attributes["livery.surface"] == "api" and request.attributes["livery.request"]
    command = await until(lambda: _finished(spans, "command ClearCache"))
    assert command.attributes["livery.station"] == str(stage.cast.station_id)
    told = [
        str(value) for one in spans.get_finished_spans() for value in (one.name, *one.attributes.values())
    ]
    assert not [one for one in told if stage.cast.card in one]


async def _finished(spans: InMemorySpanExporter, name: str) -> Any:
    return next((one for one in spans.get_finished_spans() if one.name == name), None)


async def test_a_job_goes_on_in_the_trace_of_what_enqueued_it(
    settings: Settings, database: Database, spans: InMemorySpanExporter
):
    tenant_id, seen = await found_brand(database), []

    async def note(_database: Database, tenant: UUID, n: int) -> None:
        seen.append((n, tracing.trace_id()))

    async with working(settings, ("test.note", note)):
        async with database.scope(tenant_id, CLI) as scope:
            with tracing.span("cause"):
                await queue.enqueue(scope, "test.note", n=1)
        await until(lambda: _done(seen))
        await until(lambda: _finished(spans, "job test.note"))
    cause, job = named(spans, "cause"), named(spans, "job test.note")
    assert job.parent.span_id == cause.context.span_id
    assert seen == [(1, trace_of(cause))]


async def _done(seen: list[Any]) -> bool:
    return bool(seen)


async def test_a_line_of_the_log_names_its_trace(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
):
    log = logging.getLogger("livery.test")
    with caplog.at_level(logging.WARNING):
        log.warning("outside")
        with tracing.span("work"):
            log.warning("inside %s", "it")
    assert caplog.messages == ["outside", f"inside it trace={trace_of(named(spans, 'work'))}"]


async def test_what_fails_inside_a_span_is_marked_as_failed(spans: InMemorySpanExporter):
    with pytest.raises(ValueError), tracing.span("work"):
        raise ValueError("no")
    assert not named(spans, "work").status.is_ok


async def test_off_means_that_nothing_is_there(database: Database):
    assert tracing.span("a") is tracing.span("b") and tracing.carried() == {} and tracing.trace_id() is None
    tenant_id = await found_brand(database)
    async with database.scope(tenant_id, STAFF) as scope:
        await queue.enqueue(scope, "test.note", n=1)
    with tracing.span("work") as nothing:
        assert nothing is None


def test_off_means_that_no_process_loads_what_makes_traces():
    look = "import sys, app.asgi, app.worker, ocpp_gateway.server; print('opentelemetry.sdk.trace' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_an_endpoint_without_the_packages_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch):
    assert load_settings({ENDPOINT: "http://127.0.0.1:4318"}).otel_endpoint == "http://127.0.0.1:4318"
    assert load_settings({ENDPOINT: ""}).otel_endpoint is None
    monkeypatch.setattr(settings_module, "_is_installed", lambda _module: False)
    with pytest.raises(ConfigurationFault, match="extra otel"):
        load_settings({ENDPOINT: "http://127.0.0.1:4318"})
