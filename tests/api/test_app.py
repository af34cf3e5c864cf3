import json
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from flask import Flask, render_template_string, request
from jinja2 import UndefinedError

from api.app import close, create_app
from shared.errors import SettingsError
from shared.settings.api import ApiSettings

ROOT = Path(__file__).parents[2]
# Nothing listens there: port 1 is reserved.
SETTINGS = ApiSettings(
    database_url="postgresql://nobody@127.0.0.1:1/none",
    secret_keys=("x" * 32,),
    signup_mail_delay_seconds=0.0,
    trusted_proxies=0,
)


def loaded_modules(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def failing_app(error: Exception) -> Flask:
    app = create_app(SETTINGS)

    @app.get("/fails")
    def fails() -> str:
        raise error

    return app


def test_running_api_has_loaded_neither_redis_nor_rq_nor_smtplib() -> None:
    statement = (
        "from shared.settings.api import ApiSettings\n"
        "import api\n"
        f"app = api.create_app(ApiSettings({SETTINGS.database_url!r}, ('x' * 32,), 0.0, 0))\n"
        "assert app.test_client().get('/healthz').status_code == 200"
    )

    modules = loaded_modules(statement)

    assert "api.app" in modules
    assert set() == modules & {"redis", "rq", "smtplib"}


def test_importing_the_api_does_nothing() -> None:
    statement = (
        "import logging, os, threading\n"
        "os.environ.clear()\n"
        "import api\n"
        "assert threading.active_count() == 1\n"
        "assert logging.getLogger().handlers == []"
    )

    assert "api.app" in loaded_modules(statement)


def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("SECRET_KEY", raising=False)

    with pytest.raises(SettingsError) as caught:
        create_app()

    assert {"DATABASE_URL", "SECRET_KEY"} == set(caught.value.problems)


def test_process_is_alive_without_postgresql() -> None:
    app = create_app(SETTINGS)

    response = app.test_client().get("/healthz")
    close(app)

    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_failure_of_ours_reveals_nothing() -> None:
    with structlog.testing.capture_logs():
        response = failing_app(RuntimeError("alice@example.com")).test_client().get("/fails")

    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert "alice" not in response.text
    assert "RuntimeError" not in response.text


def test_failure_of_ours_is_logged_by_its_place_without_its_text() -> None:
    error = RuntimeError("alice@example.com")
    error.__cause__ = ValueError("bob@example.com")

    with structlog.testing.capture_logs() as logs:
        failing_app(error).test_client().get("/fails")

    [line] = logs
    assert line["error"] == ["RuntimeError", "ValueError"]
    assert line["frames"][-1].endswith(" fails")
    assert "@example.com" not in json.dumps(line)


def test_name_that_no_route_passes_is_an_error_in_a_template() -> None:
    with create_app(SETTINGS).app_context(), pytest.raises(UndefinedError, match="attempt"):
        render_template_string("{{ attempt }}")


def test_unknown_path_is_a_problem() -> None:
    response = create_app(SETTINGS).test_client().get("/nowhere")

    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert {"type": "about:blank", "title": "Not Found", "status": 404}.items() <= response.get_json().items()


@pytest.mark.parametrize("mimetype", ["application/problem+json", "text/html"])
def test_other_method_is_a_problem_that_names_the_right_one(mimetype: str) -> None:
    response = create_app(SETTINGS).test_client().delete("/v1/users", headers={"Accept": mimetype})

    assert (response.status_code, response.mimetype, response.vary.to_header()) == (405, mimetype, "Accept")
    assert {"POST", "OPTIONS"} == set(response.headers["Allow"].split(", "))


def test_address_of_the_client_comes_from_as_many_proxies_as_are_trusted() -> None:
    settings = ApiSettings(SETTINGS.database_url, SETTINGS.secret_keys, 0.0, trusted_proxies=1)
    app = create_app(settings)
    app.add_url_rule("/who", view_func=lambda: {"address": request.remote_addr})

    response = app.test_client().get("/who", headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})

    assert response.get_json() == {"address": "198.51.100.7"}
