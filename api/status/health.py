"""/healthz, whether the process runs, and /readyz, whether it accepts signups."""

import structlog
from flask import Blueprint

from api.database.side_connections import SideConnections
from api.http.problems import RETRY_AFTER_SECONDS, ProblemError
from api.status.readiness import NotReadyError, check_readiness

_log = structlog.get_logger(__name__)


def health_blueprint(connections: SideConnections) -> Blueprint:
    """Build /healthz and /readyz."""
    blueprint = Blueprint("health", __name__)
    logged: list[str] = []

    @blueprint.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "ok"}

    @blueprint.get("/readyz")
    def ready() -> dict[str, str]:
        try:
            check_readiness(connections)
        except NotReadyError as exc:
            # Probes come every few seconds, so each reason is logged once, when it begins.
            if logged != [exc.reason]:
                logged[:] = [exc.reason]
                _log.warning("readiness.lost", reason=exc.reason)
            raise ProblemError(503, exc.detail, headers={"Retry-After": RETRY_AFTER_SECONDS}) from exc
        if logged:
            logged.clear()
            _log.info("readiness.regained")
        return {"status": "ready"}

    return blueprint
