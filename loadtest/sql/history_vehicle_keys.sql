-- The short ids of the vehicles of T7's history, in order.
SELECT id FROM vehicles WHERE external_id LIKE 'CAR-%' ORDER BY id
