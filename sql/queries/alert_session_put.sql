-- Stores the efficiency of a session; null if it is not judged.
-- Index: the primary key of session_efficiency.
insert into session_efficiency (session_id, vehicle_id, ended_at, computed_at, efficiency)
values ($1, $2, $3, $4, $5)
on conflict (session_id) do update
    set
        ended_at = excluded.ended_at,
        computed_at = excluded.computed_at,
        efficiency = excluded.efficiency
