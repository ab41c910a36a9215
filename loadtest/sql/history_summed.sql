-- Whether all hours are rolled up, back to $1 microseconds since 1970.
SELECT
    coalesce(built_to = sealed_to AND built_from <= 'epoch'::timestamptz + $1::bigint * interval '1 us', false)
    AND NOT EXISTS (SELECT FROM meter_hour_marks) AND NOT EXISTS (SELECT FROM vehicle_hour_marks)
FROM hours_progress
