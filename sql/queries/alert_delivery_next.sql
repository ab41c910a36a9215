-- The next delivery that is due at $1. A delivery is also due if its time is further ahead than its longest wait,
-- because the clock was set back since. That wait is 1, 2, 4 s after 1, 2, 3 attempts, at most 300 s, plus a second for
-- the time between two readings of the clock.
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
