-- Notes that an event ($2) of some alerts ($1) was not delivered because of a mute.
-- Index: the primary key of alert_withheld.
insert into alert_withheld (alert_id, event)
select
    n.id,
    $2
from unnest($1::bigint[]) as n (id)
on conflict (alert_id) do nothing
