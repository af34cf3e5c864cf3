"""PostgreSQL and Redis servers on 127.0.0.1, started from wheels."""
