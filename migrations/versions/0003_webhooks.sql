-- Endpoints of other services that get events as webhooks. The destination of their messages is webhook:<id>; an id is
-- never used again, a name may be. Disabled is a pause of that destination.
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text        NOT NULL,
    -- It may contain a token of the receiver's.
    url            text        NOT NULL,
    events         text[]      NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    enabled_at     timestamptz NOT NULL DEFAULT now(),
    -- Events after this time are not sent to it. NULL: all are.
    fan_out_until  timestamptz,
    -- Set while it is being removed.
    removed_at     timestamptz,
    CONSTRAINT webhook_endpoints_name_key UNIQUE (name),
    CONSTRAINT webhook_endpoints_name_form CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    CONSTRAINT webhook_endpoints_url_length CHECK (octet_length(url) >= 1 AND octet_length(url) <= 2000),
    CONSTRAINT webhook_endpoints_has_events CHECK (events <> '{}')
);

-- What signs an endpoint's webhooks. Only the worker and the operator read it. After a rotation the former secret signs
-- too, until ends_at.
CREATE TABLE IF NOT EXISTS webhook_secrets (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id  bigint      NOT NULL,
    secret       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    ends_at      timestamptz,
    CONSTRAINT webhook_secrets_endpoint_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints ON DELETE CASCADE,
    CONSTRAINT webhook_secrets_secret_form CHECK (secret ~ '^whsec_[A-Za-z0-9+/]{32,88}={0,2}$')
);

-- Serves the secrets of an endpoint.
CREATE INDEX IF NOT EXISTS webhook_secrets_endpoint_idx ON webhook_secrets (endpoint_id);
