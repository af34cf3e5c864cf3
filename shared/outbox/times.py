"""Times of a row as Python can hold them."""


def moment(column: str) -> str:
    """Return the SQL that reads a time, and NULL where Python has no value for it.

    PostgreSQL has times without end, before Christ and after the year 9999. Live rows are kept from most of them; what
    is history may be older than that rule. The days at both ends leave room for the session's time zone.
    """
    return f"CASE WHEN {column} BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00' THEN {column} END"


def distance(later: str, earlier: str) -> str:
    """Return the SQL for the seconds between two times, and NULL where one of them is without end."""
    return (
        f"CASE WHEN isfinite({later}) AND isfinite({earlier}) THEN extract(epoch FROM {later} - {earlier})::float8 END"
    )
