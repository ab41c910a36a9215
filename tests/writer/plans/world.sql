-- A fleet for the tests of plans: @devices@ meters and as many vehicles that send, 19 times as many that
-- have been silent for a month, and what is queried about them.
-- What is "new" lies beyond all that was there when statistics were taken.
set local statement_timeout = 0;
create function started() returns timestamptz language sql immutable
return timestamptz '2024-02-05 00:00+00';
create function new_at() returns timestamptz language sql immutable
return timestamptz '2024-02-05 06:40+00';
create function ended() returns timestamptz language sql immutable
return timestamptz '2024-02-05 07:09+00';
create function these(n integer) returns integer[] language sql immutable
return (select array_agg(d) from generate_series(1, least(n, @devices@)) as d);
-- The new readings of 300 devices, as a writer looks them up: sorted by device and time.
create function key_ids() returns integer[] language sql immutable
return (
    select array_agg(d order by d, m)
    from generate_series(1, least(300, @devices@)) as d, generate_series(400, 429) as m
);
create function key_times() returns timestamptz[] language sql immutable
return (
    select array_agg(started() + m * interval '1 minute' order by d, m)
    from generate_series(1, least(300, @devices@)) as d, generate_series(400, 429) as m
);
-- A column of one value, as long as the keys or as some devices.
create function many(value anyelement, n integer) returns anyarray language sql immutable
as $$ select array_fill(value, array[n]) $$;
create function numbers() returns integer[] language sql immutable
return (select array_agg(n) from generate_series(1, cardinality(key_ids())) as n);
create function keys() returns integer language sql immutable return cardinality(key_ids());
create function few() returns integer language sql immutable return cardinality(these(100));

create table meter_telemetry_history_2024_02 partition of meter_telemetry_history
for values from ('2024-02-01 00:00+00') to ('2024-03-01 00:00+00');
create table vehicle_telemetry_history_2024_02 partition of vehicle_telemetry_history
for values from ('2024-02-01 00:00+00') to ('2024-03-01 00:00+00');

-- Adds the devices, readings, hours, sessions and whatever else there is of them, from one number to
-- another: minutes of readings, hours of sums.
create procedure add_devices(first integer, last integer) language sql as $$
insert into meters (external_id) select 'M' || d from generate_series(first, last) as d;
insert into vehicles (external_id) select 'V' || d from generate_series(first, last) as d;
insert into meter_live_status (meter_id, ts, received_at, kwh_consumed_ac, voltage)
select d, started() - interval '30 days', started(), 0.1, 230 from generate_series(first, last) as d;
insert into vehicle_live_status (vehicle_id, ts, received_at, kwh_delivered_dc, soc, battery_temp)
select d, started() - interval '30 days', started(), 0.1, 50, 30 from generate_series(first, last) as d;
$$;
create procedure add_readings(first integer, last integer) language sql as $$
insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
select d, started() + m * interval '1 minute', 0.1, 230
from generate_series(1, @devices@) as d, generate_series(first, last) as m;
-- One vehicle in fifty names its meter, another its session, at one minute of ten.
insert into vehicle_telemetry_history
(vehicle_id, ts, kwh_delivered_dc, soc, battery_temp, named_meter_id, named_session_id)
select
    d, started() + m * interval '1 minute', 0.1, 50, 30,
    case when d % 50 = 1 and m % 10 = 5 then d end,
    case when d % 50 = 2 and m % 10 = 5 then d end
from generate_series(1, @devices@) as d, generate_series(first, last) as m;
$$;
create procedure add_hours(first integer, last integer) language sql as $$
insert into meter_hours
select
    started() + h * interval '1 hour', started() + h * interval '1 hour',
    started() + (h + 1) * interval '1 hour', 1, 1, 1, 1, d, 60, 0, 0, false
from generate_series(1, @devices@) as d, generate_series(first, last) as h;
insert into vehicle_hours
select
    started() + h * interval '1 hour', started() + h * interval '1 hour',
    started() + (h + 1) * interval '1 hour', 1, 1, 1, 1, 1, 1, 1, 1, d, 60, 0, 0, false
from generate_series(1, @devices@) as d, generate_series(first, last) as h;
$$;
create procedure add_marks(first integer, last integer) language sql as $$
insert into meter_hour_marks (hour, meter_id)
select started() + h * interval '1 hour', d
from generate_series(1, @devices@) as d, generate_series(first, last) as h;
insert into vehicle_hour_marks (hour, vehicle_id)
select started() + h * interval '1 hour', d
from generate_series(1, @devices@) as d, generate_series(first, last) as h;
$$;
-- A session a vehicle and number, of 30 minutes, once in four hours.
create procedure add_sessions(first integer, last integer) language sql as $$
insert into session_names (external_id)
select 's' || (n - 1) * @devices@ + d
from generate_series(first, last) as n, generate_series(1, @devices@) as d order by n, d;
insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
select
    (n - 1) * @devices@ + d, d, d, started() + (n - 4) * interval '4 hours',
    started() + (n - 4) * interval '4 hours' + interval '30 minutes'
from generate_series(first, last) as n, generate_series(1, @devices@) as d;
insert into session_efficiency (session_id, vehicle_id, ended_at, computed_at, efficiency)
select session_id, vehicle_id, ended_at, ended_at, 90
from charging_sessions where session_id > (first - 1) * @devices@;
$$;
create procedure add_rest(first integer, last integer) language sql as $$
insert into alerts (kind, stream, device_id, opened_at, updated_at, closed_at, value, bound, details)
select
    k, s, d, started() + n * interval '1 minute', started(),
    case when n < last then started() + n * interval '1 minute' end, 1, 1,
    jsonb_build_object('lastReadingAt', started())
from
    generate_series(first, last) as n, generate_series(1, greatest(1, @devices@ / 10)) as d,
    (values ('silent', 'meter'), ('silent', 'vehicle'), ('battery_temperature', 'vehicle')) as a (k, s)
on conflict do nothing;
-- One device in three is muted, for all kinds or for one; one alert in three is withheld.
insert into alert_mutes (stream, device_id, kind, muted_until, muted_at)
select s, d, k, ended() + interval '1 day', started()
from
    generate_series(1, greatest(1, @devices@ / 10), 3) as d,
    (values ('meter', null), ('vehicle', 'silent'), ('vehicle', 'battery_temperature')) as a (s, k)
on conflict do nothing;
insert into alert_withheld (alert_id, event)
select id, case when closed_at is null then 'opened' else 'closed' end
from alerts where id % 3 = 0
on conflict do nothing;
insert into alert_deliveries (body, created_at, due_at)
select '{}', started(), started() + n * interval '1 minute' from generate_series(first, last) as n;
insert into quarantined_readings
(run_id, shard, position, reading_index, stream, device_id, ts, reading, sqlstate, reason, received_at)
select
    '00000000-0000-0000-0000-000000000001', 0, n, d,
    'meter', 'M' || d, started() + n * interval '1 minute', '{"kwhConsumedAc": 1, "voltage": 1}', '23514',
    'a test', started()
from generate_series(first, last) as n, generate_series(1, @devices@) as d;
insert into wal_checkpoints
(run_id, shard, position, live_position, epoch, backend_pid, backend_start)
select
    ('00000000-0000-0000-0000-0000000000' || to_char(n, 'fm09'))::uuid, s, 1, 1, 1, 0, started()
from generate_series(first, last) as n, generate_series(0, 3) as s;
$$;
update hours_progress set
    sealed_to = started() + interval '100 hours', built_from = started(),
    built_to = started() + interval '100 hours';
