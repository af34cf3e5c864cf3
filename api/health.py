"""Whether the process lives, and whether it can take signups."""

from flask import Blueprint
from sqlalchemy import Engine, text

from api.database import DatabaseUnavailableError, SchemaMissingError, connected
from api.problems import RETRY_AFTER_SECONDS, ProblemError

# Resolves every table that the API writes to and reads no row.
_TABLES_EXIST = text("SELECT FROM users, verify_emails, outbox, idempotency_keys, resends WHERE false")


def health_blueprint(engine: Engine) -> Blueprint:
    """Build /healthz and /readyz."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "ok"}

    @blueprint.get("/readyz")
    def ready() -> dict[str, str]:
        try:
            with connected(engine) as connection:
                connection.execute(_TABLES_EXIST)
        except SchemaMissingError as exc:
            raise _not_ready("The database has no tables yet: apply schema.sql to it with psql.") from exc
        except DatabaseUnavailableError as exc:
            raise _not_ready("PostgreSQL does not answer: start it, or mend DATABASE_URL.") from exc
        return {"status": "ready"}

    return blueprint


def _not_ready(detail: str) -> ProblemError:
    return ProblemError(503, detail, headers={"Retry-After": RETRY_AFTER_SECONDS})
