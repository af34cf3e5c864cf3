# One image for API, relay and worker; compose.yaml says which of them a container runs.

ARG PYTHON_IMAGE=python:3.12.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
# Wheels only, each checked by its hash: nothing is compiled, and the index cannot replace anything.
COPY requirements.lock /tmp/
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes --requirement /tmp/requirements.lock

FROM ${PYTHON_IMAGE}
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY schema.sql gunicorn.conf.py alembic.ini ./
COPY migrations migrations
COPY shared shared
COPY api api
COPY outbox_relay outbox_relay
COPY consumer consumer
COPY redis_client redis_client
# The project itself is not installed: each of the three commands finds the packages in its working directory.
# The files belong to root; the processes run as an account that may only read them.
RUN chmod -R a+rX /app \
 && python -m compileall -q /app \
 && useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --uid 10001 outbox
USER 10001:10001
EXPOSE 8080
CMD ["gunicorn", "-c", "gunicorn.conf.py", "api:create_app()"]
