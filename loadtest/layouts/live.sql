-- Rounds of a live upsert of 20,000 devices, each a transaction: ON CONFLICT for all, with the arrays as a
-- function in FROM and side by side in the list of results (as the gateway has it), against an UPDATE of
-- those that are there and an INSERT of the rest. Prints microseconds a device.
CREATE FUNCTION pg_temp.measure(what text, statements text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
    total interval := '0';
    ids integer[] := array(select generate_series(1, 20000));
    values_ float8[] := array_fill(230.5::float8, array[20000]);
    times timestamptz[];
    statement text;
BEGIN
    FOR round IN 1..15 LOOP
        times := array_fill(clock_timestamp(), array[20000]);
        began := clock_timestamp();
        FOREACH statement IN ARRAY statements LOOP
            EXECUTE statement USING ids, times, times, values_, values_, values_;
        END LOOP;
        IF round > 3 THEN total := total + (clock_timestamp() - began); END IF;
    END LOOP;
    RETURN what || '|' || round((extract(epoch from total) * 1e6 / 12 / 20000)::numeric, 2);
END $$;

TRUNCATE wattgate_layouts.live;

SELECT pg_temp.measure('live status: insert … on conflict, arrays in FROM', array[
    'insert into wattgate_layouts.live as l (meter_id, ts, received_at, kwh_consumed_ac, kwh_register, voltage)
     select * from unnest($1, $2, $3, $4, $5, $6)
     on conflict (meter_id) do update set ts = excluded.ts, received_at = excluded.received_at,
        kwh_consumed_ac = excluded.kwh_consumed_ac, kwh_register = excluded.kwh_register, voltage = excluded.voltage
     where excluded.ts > l.ts'
]);

VACUUM FULL wattgate_layouts.live;

SELECT pg_temp.measure('live status: insert … on conflict, arrays side by side', array[
    'insert into wattgate_layouts.live as l (meter_id, ts, received_at, kwh_consumed_ac, kwh_register, voltage)
     select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6)
     on conflict (meter_id) do update set ts = excluded.ts, received_at = excluded.received_at,
        kwh_consumed_ac = excluded.kwh_consumed_ac, kwh_register = excluded.kwh_register, voltage = excluded.voltage
     where excluded.ts > l.ts'
]);

VACUUM FULL wattgate_layouts.live;

SELECT pg_temp.measure('live status: update … from, then insert of the rest', array[
    'update wattgate_layouts.live as l set ts = u.ts, received_at = u.received_at, kwh_consumed_ac = u.kwh,
        kwh_register = u.register, voltage = u.voltage
     from unnest($1, $2, $3, $4, $5, $6) as u (id, ts, received_at, kwh, register, voltage)
     where l.meter_id = u.id and l.ts < u.ts',
    'insert into wattgate_layouts.live (meter_id, ts, received_at, kwh_consumed_ac, kwh_register, voltage)
     select u.* from unnest($1, $2, $3, $4, $5, $6) as u (id, ts, received_at, kwh, register, voltage)
     where not exists (select from wattgate_layouts.live as l where l.meter_id = u.id)
     on conflict do nothing'
]);
