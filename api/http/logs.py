"""Keeping query strings, which hold the codes of links, out of the servers' own log lines."""

import logging
import re
from typing import Final

# From the question mark to where a request line ends.
_QUERY_STRING: Final = re.compile(r"\?.*?(?= HTTP/\d|$)", re.DOTALL)


class WithoutQueryString(logging.Filter):
    """Cuts what follows a question mark out of every line that passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; none is held back."""
        record.msg = _QUERY_STRING.sub("?…", record.getMessage())
        record.args = ()
        return True


def hide_query_strings() -> None:
    """Make `flask run` log paths alone. gunicorn's own lines are the business of gunicorn.conf.py."""
    logging.getLogger("werkzeug").addFilter(WithoutQueryString())
