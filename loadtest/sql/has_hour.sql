-- Whether the key of history leads with the hour of a reading. Gateways before that change have no such column.
SELECT EXISTS (
    SELECT
    FROM pg_attribute
    WHERE attrelid = 'meter_telemetry_history'::regclass AND attname = 'hour' AND NOT attisdropped
)
