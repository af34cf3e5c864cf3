"""Runs tasks inside a test, without a relay, a worker, Redis or a mail server. Tests import it as shared.testing."""

from consumer.testing.capturing import CapturedMail, CapturedWebhook
from consumer.testing.due import DueRun, ProcessedMessage, run_due
from consumer.testing.single import MessageRun, run_message

__all__ = ["CapturedMail", "CapturedWebhook", "DueRun", "MessageRun", "ProcessedMessage", "run_due", "run_message"]
