-- The schema of Wattgate, version 1.
--
-- One statement at a time: each is sent on its own, so that a coordinator that distributes
-- tables accepts it too. Nothing here keeps history or live tables from being distributed by
-- their device: the device is in every primary key, and no foreign key points from history.

-- The id of this database, and the width of its partitions. One row.
create table gateway_database (
    only_row boolean primary key default true check (only_row),
    database_id uuid not null default gen_random_uuid(),
    partition_width text not null check (partition_width in ('month', 'day')),
    retention_seconds bigint check (retention_seconds > 0),
    created_at timestamptz not null default now()
);

-- Registries: the short ids that history holds. Served by the index on external_id.
create table meters (
    id integer generated always as identity primary key,
    external_id text collate "C" not null unique,
    shared boolean not null default false,
    first_seen timestamptz not null default now()
);

create table vehicles (
    id integer generated always as identity primary key,
    external_id text collate "C" not null unique,
    first_seen timestamptz not null default now()
);

-- Ids of charging sessions that were registered, or only named by a vehicle so far.
create table session_names (
    id integer generated always as identity primary key,
    external_id text collate "C" not null unique,
    first_seen timestamptz not null default now()
);

-- History. A row has either the energy of an interval or the state of a register. The columns
-- are ordered so that none is lost to padding: 56 bytes a row with its header, 64 for a vehicle.
create table meter_telemetry_history (
    ts timestamptz not null,
    kwh_consumed_ac double precision,
    kwh_register double precision,
    voltage double precision not null,
    meter_id integer not null,
    primary key (meter_id, ts)
) partition by range (ts);

create table vehicle_telemetry_history (
    ts timestamptz not null,
    kwh_delivered_dc double precision,
    kwh_register double precision,
    soc double precision not null,
    battery_temp double precision not null,
    vehicle_id integer not null,
    named_meter_id integer,
    named_session_id integer,
    primary key (vehicle_id, ts)
) partition by range (ts);

-- The vehicles that named a meter or a session, and when: this shows that several vehicles are at one meter.
-- Partial: they cost fleets nothing that never name a place.
create index vehicle_telemetry_history_named_meter
on vehicle_telemetry_history (named_meter_id, ts, vehicle_id)
where named_meter_id is not null;

create index vehicle_telemetry_history_named_session
on vehicle_telemetry_history (named_session_id, ts, vehicle_id)
where named_session_id is not null;

-- Live status: the newest reading of each device by its own time. Half of each page is kept
-- free and there is no second index, so that updates stay on their page (HOT).
create table meter_live_status (
    ts timestamptz not null,
    received_at timestamptz not null,
    kwh_consumed_ac double precision,
    kwh_register double precision,
    voltage double precision not null,
    meter_id integer primary key
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.2
);

create table vehicle_live_status (
    ts timestamptz not null,
    received_at timestamptz not null,
    kwh_delivered_dc double precision,
    kwh_register double precision,
    soc double precision not null,
    battery_temp double precision not null,
    vehicle_id integer primary key
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.2
);

-- Which vehicle drew from which meter, from when to when; (started_at, ended_at].
create table charging_sessions (
    session_id integer primary key references session_names (id),
    vehicle_id integer not null references vehicles (id),
    meter_id integer not null references meters (id),
    started_at timestamptz not null,
    ended_at timestamptz,
    created_at timestamptz not null default now(),
    check (ended_at > started_at)
);

create index charging_sessions_vehicle on charging_sessions (vehicle_id, started_at);

create index charging_sessions_meter on charging_sessions (meter_id, started_at);

-- How far each shard of each run of each gateway's log is stored. The row is moved only by the
-- transaction that stores what lies before it, and only by the session that holds its epoch.
create table wal_checkpoints (
    run_id uuid not null,
    shard integer not null,
    position bigint not null,
    live_position bigint not null,
    epoch bigint not null,
    backend_pid integer not null,
    backend_start timestamptz not null,
    meter_readings bigint not null default 0,
    meter_stored bigint not null default 0,
    meter_duplicates bigint not null default 0,
    meter_quarantined bigint not null default 0,
    vehicle_readings bigint not null default 0,
    vehicle_stored bigint not null default 0,
    vehicle_duplicates bigint not null default 0,
    vehicle_quarantined bigint not null default 0,
    meter_gap bigint not null default 0,
    vehicle_gap bigint not null default 0,
    updated_at timestamptz not null default now(),
    primary key (run_id, shard),
    check (meter_readings = meter_stored + meter_duplicates + meter_quarantined),
    check (vehicle_readings = vehicle_stored + vehicle_duplicates + vehicle_quarantined)
) with (fillfactor = 50);

-- Readings that the database refuses, and readings that contradict a stored one. The key makes
-- a batch that is tried again write the same row.
create table quarantined_readings (
    run_id uuid not null,
    shard integer not null,
    position bigint not null,
    reading_index integer not null,
    stream text not null check (stream in ('meter', 'vehicle')),
    device_id text not null,
    ts timestamptz not null,
    reading jsonb not null,
    sqlstate text not null,
    reason text not null,
    received_at timestamptz not null,
    quarantined_at timestamptz not null default now(),
    primary key (run_id, shard, position, reading_index)
);

-- For people with psql, and for Grafana: the same with the ids as their owners write them. A
-- filter on an id is found through the registry and the primary key of history.
create view meter_readings as
select
    m.external_id as meter_id,
    h.ts,
    h.kwh_consumed_ac,
    h.kwh_register,
    h.voltage
from meter_telemetry_history as h
inner join meters as m on h.meter_id = m.id;

create view vehicle_readings as
select
    v.external_id as vehicle_id,
    h.ts,
    h.soc,
    h.kwh_delivered_dc,
    h.kwh_register,
    h.battery_temp
from vehicle_telemetry_history as h
inner join vehicles as v on h.vehicle_id = v.id;

create view meter_status as
select
    m.external_id as meter_id,
    s.ts,
    s.kwh_consumed_ac,
    s.kwh_register,
    s.voltage,
    s.received_at
from meter_live_status as s
inner join meters as m on s.meter_id = m.id;

create view vehicle_status as
select
    v.external_id as vehicle_id,
    s.ts,
    s.soc,
    s.kwh_delivered_dc,
    s.kwh_register,
    s.battery_temp,
    s.received_at
from vehicle_live_status as s
inner join vehicles as v on s.vehicle_id = v.id;
