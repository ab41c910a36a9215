-- The next delivery that is due at $1: also one that is put off for longer from now than it ever was,
-- because the clock was set back since. The longest is 1, 2, 4 s after 1, 2, 3 attempts, 300 at the
-- most; and a second for what has passed between two looks at the clock.
-- Index: alert_deliveries_due (due_at), read in its order; whole, if none is due.
select
    id,
    body,
    attempts
from alert_deliveries
where
    due_at <= $1
    or due_at > $1::timestamptz + interval '1 second' * (1 + least(300, 2 ^ least(attempts - 1, 9)))
order by due_at, id
limit 1
