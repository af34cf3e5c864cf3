"""Fixed paths of steps that random walks rarely find."""

from tests.sql_against_model.moment import LOCKED, NOTHING


def publish(relay: int) -> tuple[str, ...]:
    return tuple(f"relay {relay}: {step}" for step in ("take_batch", "push", "mark_published", "commit"))


def claim(consumer: int) -> tuple[str, ...]:
    return f"consumer {consumer}: pop", f"consumer {consumer}: claim"


def look_for_published(relay: int, *then: str) -> tuple[str, ...]:
    return tuple(f"relay {relay}: {step}" for step in ("find_lease_expired", "read_lists", *then))


CLAIM_IN_DOUBT = (*publish(0), "consumer 0: pop", "consumer 0: claim: its commit's reply is lost")
RETURN = ("return_missing", "delete_orphans")
TAKEN_OVER = (
    *("consumer 0: stand_still: past its time", "message 0: lease_ends", "relay 1: reap_running"),
    *(*publish(1), *claim(1)),
)
NOT_WANTED = "consumer 0: prepare: not wanted any more"
OVERDUE = "consumer 0: send: no answer before the deadline"
FAIL_AND_PUBLISH = ("consumer 0: send: 4xx", "consumer 0: fail", "message 0: becomes_due", *publish(1))
PATHS = {
    "a-claim-in-doubt-lands": (
        *(*CLAIM_IN_DOUBT, f"consumer 0: claim: {LOCKED}", "message 0: commit_lands"),
        *("consumer 0: find_own_claim: found", f"relay 0: reap_running: {NOTHING}"),
        *(f"operator: retry: m0, {NOTHING}", f"operator: discard: m0, {NOTHING}"),
        *("consumer 0: send: outage before the dot", "consumer 0: release"),
        *("message 0: becomes_due", *publish(1), *claim(1), "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-claim-in-doubt-fails": (
        *(*CLAIM_IN_DOUBT, "message 0: commit_fails", "consumer 0: find_own_claim: not there: claim again"),
        *("consumer 0: claim", "consumer 0: send: 5xx", "consumer 0: fail"),
        *("operator: retry: m0", "operator: discard: m0"),
    ),
    "a-claim-in-doubt-outlives-its-consumer": (
        *(*CLAIM_IN_DOUBT, "consumer 0: crash", "message 0: commit_lands", "message 0: lease_ends"),
        *("relay 0: reap_running", *publish(0)),
    ),
    "a-claim-in-doubt-is-taken-over": (
        *(*CLAIM_IN_DOUBT, "message 0: commit_lands", *TAKEN_OVER),
        *("consumer 0: find_own_claim: not there: claim again", "consumer 0: claim: 0 rows"),
    ),
    "a-return-meets-a-claim-in-doubt": (
        *(*CLAIM_IN_DOUBT, "redis: redis_wiped", *look_for_published(0), f"relay 0: return_missing: {LOCKED}"),
        *("message 0: commit_lands", "relay 0: return_missing", "consumer 0: find_own_claim: found"),
    ),
    "redis-forgets": (
        *(*publish(0), "redis: redis_wiped", *look_for_published(0, *RETURN), *publish(1)),
        *("redis: redis_restarted: with its data", *look_for_published(1, "renew_found"), *claim(0)),
    ),
    "redis-remembers-an-older-life": (
        *(*publish(0), "consumer 0: pop", "consumer 0: crash", "message 0: lease_ends"),
        *(*look_for_published(1), *look_for_published(1, *RETURN)),
        *("redis: redis_restored: with older data: m0-g0", *claim(1), "consumer 1: send: 4xx", "consumer 1: fail"),
    ),
    "a-frozen-relay-loses-its-batch": (
        *("relay 0: take_batch", f"relay 1: take_batch: {NOTHING}"),
        *("relay 0: push", "relay 0: stand_still: PostgreSQL ends its transaction"),
        *(*publish(1), "relay 0: rollback: the connection is dead"),
        *(*claim(0), "consumer 1: pop", "consumer 1: claim: 0 rows"),
        *("consumer 0: send: accepted", "consumer 0: ack: not answered, committed", "consumer 0: ack: 0 rows"),
    ),
    "postgres-goes-away": (
        *("relay 0: take_batch", "relay 0: push", "relay 0: mark_published", "postgres: postgres_outage"),
        *("relay 0: rollback: the connection is dead", *claim(0), "consumer 0: send: 4xx", "consumer 0: fail"),
        f"relay 1: take_batch: {NOTHING}",
    ),
    "a-renewal-comes-after-the-claim": (
        *(*publish(0), "message 0: lease_ends", *look_for_published(0), *claim(0)),
        *("consumer 0: crash", "message 0: lease_ends", "relay 0: renew_found"),
    ),
    "a-renewal-meets-a-claim-in-doubt": (
        *(*CLAIM_IN_DOUBT, "redis: redis_restored: with older data: m0-g0", *look_for_published(0)),
        *(f"relay 0: renew_found: {LOCKED}", "message 0: commit_lands", "relay 0: renew_found"),
    ),
    "an-older-job-comes-too-early": (
        *(*publish(0), *claim(0), "consumer 0: send: 4xx", "consumer 0: fail"),
        *("redis: redis_restored: with older data: m0-g0", "consumer 1: pop", "consumer 1: claim: 0 rows"),
    ),
    "a-late-acknowledgement-counts": (
        *(*publish(0), *claim(0), "consumer 0: send: accepted", "consumer 0: stand_still: past its time"),
        *("message 0: lease_ends", "consumer 0: ack"),
    ),
    "a-renewal-comes-a-life-late": (
        *(*publish(0), "message 0: lease_ends", *look_for_published(0), *claim(0), *FAIL_AND_PUBLISH),
        *("message 0: lease_ends", "relay 0: renew_found"),
    ),
    "a-return-comes-a-life-late": (
        *(*publish(0), "consumer 0: pop", "redis: redis_wiped", *look_for_published(0), "consumer 0: claim"),
        *(*FAIL_AND_PUBLISH, "relay 0: return_missing"),
    ),
    "a-frozen-consumer-acknowledges-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: accepted", *TAKEN_OVER),
        *("consumer 0: ack: 0 rows", "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-frozen-consumer-fails-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: 4xx", *TAKEN_OVER),
        *("consumer 0: fail: 0 rows", "consumer 1: crash", "message 0: lease_ends", "relay 0: reap_running"),
        "operator: retry: m0",
    ),
    "a-late-answer-is-waited-for": (
        *(*publish(0), *claim(0), OVERDUE, "consumer 0: renew_claim", "consumer 0: deadline_passes"),
        *("consumer 0: renew_claim: not answered, committed", "consumer 0: renew_claim"),
        *("consumer 0: send: accepted late", "consumer 0: ack"),
    ),
    "a-lease-that-is-over-is-renewed": (
        *(*publish(0), *claim(0), OVERDUE, "consumer 0: stand_still: past its time", "message 0: lease_ends"),
        *("consumer 0: renew_claim", f"relay 0: reap_running: {NOTHING}"),
        *("consumer 0: send: accepted late", "consumer 0: ack"),
    ),
    "a-frozen-consumer-renews-too-late": (
        *(*publish(0), *claim(0), OVERDUE, *TAKEN_OVER),
        *("consumer 0: renew_claim: 0 rows", "consumer 0: fail: 0 rows"),
        *("consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-consumer-dies-while-it-waits": (
        *(*publish(0), *claim(0), OVERDUE, "consumer 0: renew_claim"),
        *("consumer 0: crash: its mail is accepted all the same", "message 0: lease_ends", "relay 0: reap_running"),
        *(*publish(0), *claim(1), "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-mail-is-not-wanted-any-more": (
        *(*publish(0), *claim(0), NOT_WANTED, "consumer 0: discard_claims: not answered, committed"),
        *("consumer 0: discard_claims: 0 rows", f"operator: retry: m0, {NOTHING}"),
    ),
    "a-frozen-consumer-discards-too-late": (
        *(*publish(0), *claim(0), NOT_WANTED, *TAKEN_OVER),
        *("consumer 0: discard_claims: 0 rows", "consumer 1: send: accepted", "consumer 1: ack"),
    ),
    "a-frozen-consumer-releases-too-late": (
        *(*publish(0), *claim(0), "consumer 0: send: outage before the dot", *TAKEN_OVER),
        *("consumer 0: release: 0 rows", "consumer 1: send: accepted", "consumer 1: ack"),
    ),
}
