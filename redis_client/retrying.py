"""The retry rule of our Redis clients: a command is never repeated."""

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry


def no_retry() -> Retry:
    """Return the rule of a client that repeats no command, and opens a new connection after each error.

    redis-py's default repeats a MULTI whose reply was lost: every job would be in the list twice. It also keeps a
    connection on which the server refused a command. A master that was demoted to a replica keeps its clients, although
    the name in the URL may lead to the new master.
    """
    return Retry(NoBackoff(), 0, supported_errors=(RedisConnectionError, RedisTimeoutError, ResponseError))
