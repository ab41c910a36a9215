-- Stores a session; no row if its name is taken.
-- Served by the primary key of charging_sessions.
insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
values ($1, $2, $3, $4, $5)
on conflict (session_id) do nothing
