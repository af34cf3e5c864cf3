"""What a client does after an error: never the same command again."""

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry


def no_retry() -> Retry:
    """Return the rule of a client that repeats no command by itself, and opens a connection after each error.

    redis-py's default repeats a MULTI whose reply was lost: every job would stand in the list twice, without a word.
    And it keeps a connection on which the server refused. One that was demoted to a replica keeps its clients, while
    the name in the URL leads to its successor.
    """
    return Retry(NoBackoff(), 0, supported_errors=(RedisConnectionError, RedisTimeoutError, ResponseError))
