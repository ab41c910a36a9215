-- Registers the devices of T7's history: meters and vehicles of the same ids.
WITH ids AS (
    SELECT 'CAR-' || lpad(n::text, 6, '0') AS external_id
    FROM generate_series(1, $1::integer) AS n
),
vehicles_made AS (
    INSERT INTO vehicles (external_id) SELECT external_id FROM ids
    ON CONFLICT DO NOTHING
)
INSERT INTO meters (external_id) SELECT external_id FROM ids
ON CONFLICT DO NOTHING
