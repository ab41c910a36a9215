-- The next delivery that is due at $1; one that is further ahead than any is ever put off is left from
-- a clock that has gone back since.
-- Index: alert_deliveries_due (due_at).
select
    id,
    body,
    attempts,
    created_at
from alert_deliveries
where due_at <= $1 or due_at > $1::timestamptz + interval '10 minutes'
order by due_at, id
limit 1
