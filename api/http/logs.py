"""Keep query strings out of the servers' log lines: they contain the codes of links."""

import logging
import re
from typing import Final

# From the question mark to the end of the request line.
_QUERY_STRING: Final = re.compile(r"\?.*?(?= HTTP/\d|$)", re.DOTALL)


class WithoutQueryString(logging.Filter):
    """Removes everything after a question mark from each log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record. Never drops one."""
        record.msg = _QUERY_STRING.sub("?…", record.getMessage())
        record.args = ()
        return True


def hide_query_strings() -> None:
    """Make `flask run` log paths only. gunicorn.conf.py does the same for gunicorn."""
    logging.getLogger("werkzeug").addFilter(WithoutQueryString())
