-- The layout whose COPY is the limit L1: the gateway's history of meters as it was first laid out,
-- with its primary key and monthly partitions, in a schema of its own. It stays as it is when the
-- gateway's layout changes, so that a better layout shows as a better ratio.
DROP SCHEMA IF EXISTS wattgate_limits CASCADE;

CREATE SCHEMA wattgate_limits;

CREATE TABLE wattgate_limits.history (
    ts timestamptz NOT NULL,
    kwh_consumed_ac double precision,
    kwh_register double precision,
    voltage double precision NOT NULL,
    meter_id integer NOT NULL,
    PRIMARY KEY (meter_id, ts)
) PARTITION BY RANGE (ts);

-- Last month, this and the next: the rows are of the last day and later.
DO $$
DECLARE
    first timestamptz;
BEGIN
    FOR months IN -1..1 LOOP
        first := date_trunc('month', now()) + make_interval(months => months);
        EXECUTE format(
            'CREATE TABLE wattgate_limits.%I PARTITION OF wattgate_limits.history FOR VALUES FROM (%L) TO (%L)',
            'history_' || (months + 1), first, first + interval '1 month'
        );
    END LOOP;
END $$;
