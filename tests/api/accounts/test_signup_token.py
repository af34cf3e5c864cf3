"""What a signup token shows, how long it is valid, and who gets a mail that is sent again."""

from tests.api.accounts.steps import MALLORY, RESEND, SIGNUP, bearer, correct, let_claim, mailed, state
from tests.programs.api_service import ALICE, ApiService

DONE = """
    WITH gone AS (DELETE FROM outbox WHERE id = %(id)s RETURNING *)
    INSERT INTO outbox_finished (id, task, payload, queue, status, due_at, generation, attempt, max_retries, failures,
                                 created_at, finished_at)
    SELECT id, task, payload, queue, %(status)s, due_at, generation, 1, max_retries, failures, created_at, now()
      FROM gone
"""


def finish(api: ApiService, message_id: int, status: str = "done") -> None:
    api.sql(DONE, {"id": message_id, "status": status})


def test_nothing_is_done_without_the_token(api: ApiService, alice: dict[str, str]) -> None:
    assert alice
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answers = [correct(api, headers), api.client().get(SIGNUP, headers=headers)]
        assert [(answer.status_code, answer.headers["WWW-Authenticate"]) for answer in answers] == [(401, "Bearer")] * 2
    assert mailed(api) == ["alice"]


def test_token_of_a_freed_name_is_invalid(api: ApiService, alice: dict[str, str]) -> None:
    api.sql("DELETE FROM users")
    api.sign_up()

    assert correct(api, alice).status_code == 401
    assert api.client().get(SIGNUP, headers=alice).status_code == 401


def test_token_allows_reading_for_some_days_after_the_verification(api: ApiService, alice: dict[str, str]) -> None:
    api.client().post(api.link(api.record()))
    after = state(api, alice)
    api.sql("UPDATE users SET verified_at = now() - interval '7 days 1 second'")

    assert (after["is_email_verified"], after["mail"]) == (True, {"state": "sent"})
    assert api.client().get(SIGNUP, headers=alice).status_code == 401


def test_state_follows_the_mail(api: ApiService, alice: dict[str, str]) -> None:
    states = [state(api, alice)["mail"]]
    api.sql("UPDATE outbox SET attempt = 1, due_at = now() + interval '1 hour'")  # after a failure
    api.record()
    states.append(state(api, alice)["mail"])
    finish(api, 1)
    states.append(state(api, alice)["mail"])
    api.sign_up(**MALLORY)
    api.sql("UPDATE users SET is_email_verified = true WHERE username = 'mallory'")
    states.append(state(api, alice)["mail"])

    assert states == [{"state": "pending"}, {"state": "pending"}, {"state": "sent"}, {"state": "taken"}]


def test_mail_that_was_discarded_was_not_sent(api: ApiService, alice: dict[str, str]) -> None:
    api.record()
    finish(api, 1, "discarded")

    assert state(api, alice)["mail"] == {"state": "pending"}


def test_mail_is_sent_again_to_the_right_account(api: ApiService) -> None:
    alice = bearer(api.sign_up())
    api.sign_up(**MALLORY)
    api.sign_up(username="carol", email="carol@example.com")
    before = mailed(api)

    def asked(email: str, headers: dict[str, str], username: str | None = None) -> list[str]:
        body = {"email": email} if username is None else {"email": email, "username": username}
        api.sql("DELETE FROM resends")
        api.sql("DELETE FROM verification_mails")
        let_claim(api)
        assert api.client().post(RESEND, json=body, headers=headers).status_code == 202
        return mailed(api)[len(before) :]

    whose = [
        asked(ALICE["email"], {})[-1:],
        asked(ALICE["email"], {}, "alice")[-1:],
        asked("ALICE@example.com", {}, "nobody\0\ud800")[-1:],
        asked(ALICE["email"], alice)[-1:],
        asked(ALICE["email"], alice, "mallory")[-1:],
        # An account with another address gets no mail.
        asked("carol@example.com", alice, "alice")[-1:],
    ]

    assert whose == [["mallory"], ["alice"], ["mallory"], ["alice"], ["alice"], ["carol"]]
    assert len(asked("nobody@example.com", alice, "alice")) == len(whose)
