"""The alert rules, the dashboard and the runbook, against each other and against the metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from ruamel.yaml import YAML

from outbox_relay.metrics.relay_metrics import RelayMetrics
from tests.programs.api_service import api_service

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
RULES: list[dict[str, Any]] = YAML(typ="safe").load(OPERATIONS / "alerts.yml")["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((OPERATIONS / "dashboard.json").read_text())
METRIC = re.compile(r"\b(?:outbox|http)_[a-z_]+")
LABELS_OF_A_SELECTOR = re.compile(r"(\w+)(?:=|!=|=~|!~)\"")
LABELS_OF_A_GROUP = re.compile(r"\bby \(([\w, ]+)\)")
EXPRESSIONS: list[str] = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on the PATH: it is in Debian's package prometheus")
    return subprocess.run(
        [found, *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture(scope="module")
def exposed(postgres: Any, database_template: str) -> dict[str, set[str]]:
    """The names of all samples that an API and a relay expose, each with the names of its labels."""
    name = f"{database_template}_metrics"
    url = postgres.create_database(name, template=database_template)
    with api_service(url) as service:
        service.sign_up()
        text = service.client().get("/metrics").text + generate_latest(RelayMetrics(url).registry).decode()
    postgres.drop_database(name)
    found = re.findall(r"(?m)^([a-z_]+)(?:\{(.*)\})? ", text)
    return {name: set(LABELS_OF_A_SELECTOR.findall(labels)) for name, labels in found}


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(OPERATIONS / "alerts.yml"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", "alerts_test.yml")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_has_its_place_in_the_runbook(rule: dict[str, Any]) -> None:
    runbook = (OPERATIONS / "runbook.md").read_text()

    assert f"\n## {rule['alert']}\n" in runbook
    assert rule["annotations"]["runbook"] == f"docs/operations/runbook.md#{rule['alert'].lower()}"
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_runbook_explains_no_alert_that_does_not_exist() -> None:
    explained = set(re.findall(r"(?m)^## (.+)$", (OPERATIONS / "runbook.md").read_text()))

    assert explained == {rule["alert"] for rule in RULES}


def test_every_metric_that_is_asked_for_is_exposed(exposed: dict[str, set[str]]) -> None:
    asked = {name for expression in EXPRESSIONS for name in METRIC.findall(expression)}

    assert asked - set(exposed) == set()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_that_is_asked_for_is_exposed(exposed: dict[str, set[str]], expression: str) -> None:
    """PromQL finds nothing where a label has another name, and an alert on nothing never fires."""
    asked = set(LABELS_OF_A_SELECTOR.findall(expression))
    asked |= {name for group in LABELS_OF_A_GROUP.findall(expression) for name in group.split(", ")}

    assert asked - set().union(*(exposed[name] for name in METRIC.findall(expression))) == set()


def test_every_metric_is_documented(exposed: dict[str, set[str]]) -> None:
    documented = set(METRIC.findall((OPERATIONS / "metrics.md").read_text()))
    families = {re.sub("_(bucket|count|sum|created)$", "", name) for name in exposed}

    assert {name for name in families if METRIC.fullmatch(name)} - documented - {
        f"{name.removesuffix('_total')}" for name in documented
    } == set()


def test_every_panel_has_a_place_of_its_own() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
