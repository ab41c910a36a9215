-- Alerts, their deliveries, and the efficiency of each session for the search for anomalies.

-- One row from the moment an alert opens; at most one is open of a kind and a device.
create table alerts (
    id bigint generated always as identity primary key,
    kind text not null,
    stream text not null check (stream in ('meter', 'vehicle')),
    device_id integer not null,
    opened_at timestamptz not null,
    updated_at timestamptz not null,
    closed_at timestamptz,
    value double precision not null,
    bound double precision not null,
    details jsonb not null
);

create unique index alerts_open on alerts (kind, stream, device_id)
where closed_at is null;

-- The queue of a webhook. A row is deleted when the receiver has accepted it.
create table alert_deliveries (
    id bigint generated always as identity primary key,
    body text not null,
    attempts integer not null default 0,
    created_at timestamptz not null,
    due_at timestamptz not null
);

create index alert_deliveries_due on alert_deliveries (due_at);

-- The efficiency of each ended session, as it was when it was computed: in percent.
create table session_efficiency (
    session_id integer primary key,
    vehicle_id integer not null,
    ended_at timestamptz not null,
    computed_at timestamptz not null,
    efficiency double precision
);

create index session_efficiency_vehicle on session_efficiency (vehicle_id, ended_at);

-- Ended sessions are found by the time of their end.
create index charging_sessions_ended on charging_sessions (ended_at);
