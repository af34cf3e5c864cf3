"""The examples of the OpenAPI document are what the API answers."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from api.accounts.idempotency import IN_FLIGHT
from tests.programs.api_service import ApiService, api_service

ADA = {"username": "ada", "full_name": "Ada Lovelace", "email": "ada@example.com", "password": "correct horse"}
BOB = {**ADA, "username": "bob", "password": "what bob chose"}
LINK = "/v1/verify_email"
BODIES = ("/v1/users", LINK, f"{LINK}/resend", "/v1/signup/email")
COMPARED = {"200", "202", "400", "401", "403", "404", "409", "410", "415", "422"}
"""Statuses whose answers depend on the operation."""

Answers = dict[tuple[str, str], list[Any]]


@pytest.fixture
def api(database_url: str) -> Iterator[ApiService]:
    with api_service(database_url) as service:
        yield service


class Asking:
    """Sends requests and collects the answers by operation."""

    def __init__(self, api: ApiService) -> None:
        self.answers: Answers = defaultdict(list)
        self._api = api

    def ask(self, method: str, target: str, **request: Any) -> Any:
        answer = self._api.client().open(target, method=method, **request).get_json()
        self.answers[target.partition("?")[0], method.lower()].append(answer)
        return answer

    def link(self, target: str) -> None:
        for method in ("GET", "POST"):
            self.ask(method, target)


def ask_everything(api: ApiService) -> Answers:
    asking = Asking(api)
    ask = asking.ask
    token = {"Authorization": f"Bearer {ask('POST', '/v1/users', json=ADA)['signup_token']}"}
    for path in BODIES:
        ask("POST", path, data="", content_type="application/json", headers=token)
        ask("POST", path, data="x", content_type="text/plain", headers=token)
        ask("POST", path, json={**ADA, "username": "Ada!"})
        ask("POST", path, json={"email": "nobody"}, headers=token)
    ask("POST", "/v1/users", json=ADA, headers={"Idempotency-Key": '""'})
    for password in ("correct horse", "another horse"):
        ask("POST", "/v1/users", json={**ADA, "password": password}, headers={"Idempotency-Key": "key"})
    ask("POST", "/v1/users", json={**ADA, "password": "another horse"})
    for path in ("/healthz", "/readyz", "/v1/signup"):
        ask("GET", path, headers=token)
    ask("GET", "/v1/signup")
    ask("POST", "/v1/signup/email", json={"email": ADA["email"]})
    ask("POST", "/v1/signup/email", json={"email": ADA["email"]}, headers=token)
    ask("POST", f"{LINK}/resend", json={"email": ADA["email"]})

    links = [api.link(api.record("ada"), email=ADA["email"])]
    asking.link(f"{LINK}?email_id=1")
    asking.link(f"{LINK}?email_id=1&secret_code=altered")
    ask("GET", links[0])
    another = {"Authorization": f"Bearer {ask('POST', '/v1/users', json=BOB)['signup_token']}"}
    links.append(api.link(api.record("bob"), email=BOB["email"]))
    asking.link(links[1])
    ask("POST", links[1], data={"username": "bob", "password": "wrong"})
    api.sql("UPDATE verify_emails SET created_at = now() - interval '2 hours', expires_at = now() WHERE id = 1")
    asking.link(links[0])
    ask("POST", links[1], headers=another)
    asking.link(api.link(api.record("ada"), email=ADA["email"]))
    ask("POST", "/v1/signup/email", json={"email": "new@example.com"}, headers=another)
    api.sql("UPDATE users SET email = 'old@example.com' WHERE username = 'ada'")
    ask("POST", "/v1/signup/email", json={"email": BOB["email"]}, headers=token)
    return asking.answers


def test_examples_are_what_the_api_answers(api: ApiService) -> None:
    answers = ask_everything(api)

    document = api.client().get("/openapi.json").get_json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status in COMPARED & set(operation["responses"]):
                [content] = operation["responses"][status]["content"].values()
                for each in content["examples"].values():
                    example = each["value"]
                    # A token and a time differ from run to run; two requests at once are another test's.
                    if "signup_token" not in example and example.get("detail") != IN_FLIGHT:
                        assert example in answers[path, method], (method, path, status)
