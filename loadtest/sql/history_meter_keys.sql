-- The short ids of the meters of T7's history, in order.
SELECT id FROM meters WHERE external_id LIKE 'CAR-%' ORDER BY id
