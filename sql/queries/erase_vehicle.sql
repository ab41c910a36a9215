-- Erases all rows of a vehicle in one statement, and returns how many of each kind there were. Names of
-- sessions that it named are erased if nothing else holds them.
-- Indexes: the primary keys of history and live status, charging_sessions_vehicle,
-- vehicle_telemetry_history_named_session; quarantine, alerts, deliveries and
-- dirty hours are read whole.
with
vehicle as (
    delete from vehicles
    where external_id = $1::text
    returning id
),
history as (
    delete from vehicle_telemetry_history
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning named_session_id
),
live as (
    delete from vehicle_live_status
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning vehicle_id
),
hours as (
    delete from vehicle_hours
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning hour
),
marks as (
    delete from vehicle_hour_marks
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning hour
),
sessions as (
    delete from charging_sessions
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning session_id
),
efficiency as (
    delete from session_efficiency
    where vehicle_id in (select id from vehicles where external_id = $1)
    returning session_id
),
named as (
    select session_id as id from sessions
    union
    select named_session_id from history
    where named_session_id is not null
),
names as (
    delete from session_names as n
    using named
    where
        n.id = named.id
        and not exists (
            select 1 from charging_sessions as s
            where s.session_id = n.id and s.vehicle_id not in (select id from vehicles where external_id = $1)
        )
        and not exists (
            select 1 from vehicle_telemetry_history as h
            where h.named_session_id = n.id and h.vehicle_id not in (select id from vehicles where external_id = $1)
        )
    returning n.id
),
quarantine as (
    delete from quarantined_readings
    where stream = 'vehicle' and device_id = $1
    returning reading_index
),
opened as (
    delete from alerts
    where stream = 'vehicle' and device_id in (select id from vehicles where external_id = $1)
    returning id
),
mutes as (
    delete from alert_mutes
    where stream = 'vehicle' and device_id in (select id from vehicles where external_id = $1)
    returning id
),
deliveries as (
    delete from alert_deliveries
    where body::jsonb #>> '{alert,vehicleId}' = $1
    returning id
)
select
    (select count(*) from vehicle) as vehicles,
    (select count(*) from history) as readings,
    (select count(*) from live) as live_status,
    (select count(*) from hours) as hours,
    (select count(*) from marks) as hour_marks,
    (select count(*) from sessions) as sessions,
    (select count(*) from efficiency) as session_efficiencies,
    (select count(*) from names) as session_names,
    (select count(*) from quarantine) as quarantined,
    (select count(*) from opened) as alerts,
    (select count(*) from mutes) as alert_mutes,
    (select count(*) from deliveries) as alert_deliveries
