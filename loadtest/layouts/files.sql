-- Writes the batches of one connection as files of the server, sorted by (device, time).
CREATE PROCEDURE wattgate_layouts.make(
    form text, rows integer, spread text, connection integer, batches integer, dir text
) LANGUAGE plpgsql AS $$
DECLARE
    steps integer := greatest(rows / 10000, 1);
    devices integer := rows / greatest(rows / 10000, 1);
    device text := CASE spread WHEN 'range' THEN 'd + 10000 * %1$s' ELSE 'd * 2 + %1$s' END;
    readings text;
BEGIN
    FOR batch IN 0..batches - 1 LOOP
        readings := format(
            'select timestamptz ''2026-01-01 00:00Z'' + s * interval ''1 second'' as ts, 0.01::float8 as kwh_consumed_ac,
                    null::float8 as kwh_register, 230.5::float8 as voltage, (' || device || ')::integer as meter_id
             from generate_series(1, %2$s) as d, generate_series(%3$s, %4$s) as s order by 5, 1',
            connection, devices, batch * steps, (batch + 1) * steps - 1
        );
        IF form = 'chunks' THEN
            readings := format(
                'select min(ts), meter_id, array_agg(ts), array_agg(kwh_consumed_ac), array_agg(kwh_register), array_agg(voltage)
                 from (%s) as r group by meter_id order by 2, 1', readings
            );
        END IF;
        EXECUTE format('copy (%s) to %L (format binary)', readings, format('%s/%s-%s-%s.%s.%s', dir, form, rows, spread, connection, batch));
    END LOOP;
END $$;
