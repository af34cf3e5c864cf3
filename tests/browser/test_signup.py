"""From the form to the verified address, as a new user goes."""

import psycopg
import pytest

from embedded.mail.folder import CaughtMail
from embedded.stack import Stack
from tests.browser.chromium import NARROW, WIDE, Browser
from tests.browser.conftest import Keep
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ADA = {
    "username": "ada",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "password": "correct horse",
}


def person(number: int) -> dict[str, str]:
    return {**ADA, "username": f"user{number}", "email": f"user{number}@example.com"}


def mails_to(stack: Stack, email: str) -> list[CaughtMail]:
    return [mail for mail in stack.mails.mails() if mail.recipients == (email,)]


def newest_link(stack: Stack, email: str, *, mails: int = 1) -> str:
    """Return the link in the last of so many mails."""
    wait_until(lambda: len(mails_to(stack, email)) >= mails, 30, f"{mails} mail(s) to {email}")
    return mails_to(stack, email)[-1].links[0]


def test_newcomer_signs_up_opens_the_mailbox_and_is_verified(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.open(stack.api_url)
    keep("sign-up")
    browser.fill_in(**ADA)
    browser.heading("Check your inbox")
    assert "ada@example.com" in browser.text()
    keep("inbox")

    link = newest_link(stack, ADA["email"])
    browser.click("Open its mailbox")
    browser.click(mails_to(stack, ADA["email"])[0].subject)
    browser.click(link)
    browser.heading("Verify your email address")
    keep("verify")
    browser.find("button").click()
    browser.heading("Your email address is verified")
    keep("verified")

    stack.mails.wait_for(lambda mail: mail.subject == "Welcome" and mail.recipients == (ADA["email"],), 30)


def test_errors_stand_at_their_fields_and_the_first_one_has_the_cursor(
    browser: Browser, stack: Stack, keep: Keep
) -> None:
    browser.open(stack.api_url)
    browser.fill_in(username="Grace!", full_name="Grace Hopper", email="grace", password="short")  # noqa: S106
    browser.find(".error")
    keep("sign-up-errors")

    wrong = browser.driver.find_elements("css selector", "[aria-invalid]")
    assert [each.get_attribute("name") for each in wrong] == ["username", "email", "password"]
    for each in wrong:
        described = (each.get_attribute("aria-describedby") or "").split()
        assert f"{each.get_attribute('name')}-error" in described
        assert all(browser.find(f"#{name}").text for name in described)
    assert browser.find("input[name=full_name]").get_attribute("value") == "Grace Hopper"
    assert browser.find("input[name=password]").get_attribute("value") == ""
    assert browser.driver.switch_to.active_element.get_attribute("name") == "username"


def test_mail_can_be_sent_again_after_a_minute(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.open(stack.api_url)
    browser.fill_in(**person(1))
    browser.heading("Check your inbox")
    button = browser.find("form button")
    assert not button.is_displayed()

    browser.let_a_minute_pass()
    browser.open(f"{stack.api_url}/inbox")
    button = browser.find("form.after-a-minute button")
    wait_until(button.is_displayed, 10, "the button")
    keep("inbox-after-a-minute")
    button.click()
    wait_until(lambda: "an email is on its way" in browser.text(), 10, "the answer")

    wait_until(lambda: len(mails_to(stack, "user1@example.com")) == 2, 30, "the second mail")


def test_expired_link_leads_to_a_new_one(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.open(stack.api_url)
    browser.fill_in(**person(2))
    link = newest_link(stack, "user2@example.com")
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("UPDATE verify_emails SET expires_at = now() WHERE email = 'user2@example.com'")

    browser.open(link)
    browser.heading("This link has expired")
    keep("expired")
    assert browser.find("input[name=email]").get_attribute("value") == "user2@example.com"
    browser.find("form button").click()
    browser.heading("Check your inbox")

    browser.open(newest_link(stack, "user2@example.com", mails=2))
    browser.heading("Verify your email address")
    browser.find("form button").click()
    browser.heading("Your email address is verified")


@pytest.mark.long
def test_wrong_address_is_corrected_and_the_mail_goes_to_the_right_one(
    browser: Browser, stack: Stack, keep: Keep
) -> None:
    browser.open(stack.api_url)
    browser.fill_in(**{**person(4), "email": "usr4@example.com"})
    browser.heading("Check your inbox")
    browser.click("Change it")
    browser.heading("Change your email address")
    assert "usr4@example.com" in browser.text()
    keep("address")
    browser.fill_in(email="user4@example.com")
    browser.heading("Check your inbox")
    assert "user4@example.com" in browser.text()

    browser.open(newest_link(stack, "user4@example.com"))
    browser.heading("Verify your email address")
    assert "user4" in browser.text()
    browser.find("form button").click()
    browser.heading("Your email address is verified")
    browser.open(f"{stack.api_url}/inbox")
    browser.heading("Your email address is verified")


@pytest.mark.long
def test_owner_of_an_address_is_asked_which_account_is_theirs(browser: Browser, stack: Stack, keep: Keep) -> None:
    stranger = {**person(5), "username": "stranger", "password": "what a stranger chose"}
    for someone in (person(5), stranger):
        browser.driver.delete_all_cookies()
        browser.open(stack.api_url)
        browser.fill_in(**someone)
        browser.heading("Check your inbox")

    # In the stranger's browser the link verifies the stranger's account; the owner opens it elsewhere.
    browser.driver.delete_all_cookies()
    browser.open(newest_link(stack, "user5@example.com", mails=2))
    browser.heading("Which account is yours?")
    keep("proof")
    browser.fill_in(username="user5", password="wrong")  # noqa: S106
    wait_until(lambda: "Try again" in browser.text(), 10, "the answer to a wrong password")
    browser.fill_in(username="user5", password=person(5)["password"])
    browser.heading("Your email address is verified")

    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        rows = connection.execute("SELECT username FROM users WHERE email = 'user5@example.com' AND is_email_verified")
        assert rows.fetchall() == [("user5",)]


def test_altered_link_is_not_valid(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.open(f"{stack.api_url}/v1/verify_email?email_id=1&secret_code=altered")
    browser.heading("This link is not valid")
    keep("not-valid")

    browser.click("Send it again")
    browser.heading("Send the email again")
    keep("send-again")


@pytest.mark.long
def test_pages_fit_a_small_phone(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.look_at(NARROW)
    browser.open(stack.api_url)
    keep("sign-up-narrow")
    browser.fill_in(**{**person(3), "username": "A" * 100, "email": "b" * 200})
    browser.find(".error")
    keep("sign-up-errors-narrow")
    browser.fill_in(**{**person(3), "email": f"{'long' * 15}@{'example' * 8}.com"})
    browser.heading("Check your inbox")
    keep("inbox-narrow")


@pytest.mark.long
def test_pages_have_a_dark_side(browser: Browser, stack: Stack, keep: Keep) -> None:
    browser.look_at(WIDE, dark=True)
    browser.open(stack.api_url)
    keep("sign-up-dark")


@pytest.mark.long
@pytest.mark.parametrize(("width", "suffix"), [(WIDE, ""), (NARROW, "-narrow")])
def test_description_of_the_api_fits_the_window(
    browser: Browser, stack: Stack, keep: Keep, width: int, suffix: str
) -> None:
    browser.look_at(width)
    browser.open(f"{stack.api_url}/docs")
    keep(f"docs{suffix}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("mail", "name", "width", "dark"),
    [
        ("verify_email", "mail-verify", WIDE, False),
        ("verify_email", "mail-verify-dark", WIDE, True),
        ("verify_email", "mail-verify-narrow", NARROW, False),
        ("welcome_email", "mail-welcome", WIDE, False),
    ],
)
def test_mails_fit_the_window(
    browser: Browser,
    stack: Stack,
    keep: Keep,
    mail: str,
    name: str,
    width: int,
    dark: bool,  # noqa: FBT001
) -> None:
    browser.look_at(width, dark=dark)
    browser.open(f"{stack.mailbox_url}/previews/{mail}/html")
    browser.find("h1")
    keep(name)
