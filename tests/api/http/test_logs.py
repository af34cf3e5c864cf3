import logging

import pytest

from api.http.logs import WithoutQueryString

CODE = "the-secret-code"


@pytest.mark.parametrize(
    ("message", "arguments", "logged"),
    [
        (
            '"%s" %s %s',
            (f"GET /v1/verify_email?secret_code={CODE} HTTP/1.1", 200, "-"),
            '"GET /v1/verify_email?… HTTP/1.1" 200 -',
        ),
        (
            f"Invalid HTTP request line: 'GET /a?secret_code={CODE} b HTTP/1.1'",
            (),
            "Invalid HTTP request line: 'GET /a?… HTTP/1.1'",
        ),
        ("Error handling request %s", (f"/a?x\n{CODE}",), "Error handling request /a?…"),
        ("Listening at: %s (%s)", ("http://127.0.0.1:8080", 1), "Listening at: http://127.0.0.1:8080 (1)"),
    ],
)
def test_log_line_keeps_the_path_and_loses_the_query(message: str, arguments: tuple[object, ...], logged: str) -> None:
    record = logging.LogRecord("gunicorn.error", logging.INFO, __file__, 1, message, arguments, None)

    passed = WithoutQueryString().filter(record)

    assert passed
    assert logged == record.getMessage()
