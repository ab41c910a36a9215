-- The next delivery that is due at $1.
-- Index: alert_deliveries_due (due_at).
select
    id,
    body,
    attempts,
    created_at
from alert_deliveries
where due_at <= $1
order by due_at, id
limit 1
