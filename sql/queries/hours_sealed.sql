-- The watermark, and the pass over the dirty hours. A reading up to and including the watermark makes its hour dirty.
-- Unless the session has it ($1), it tries to share a lock ($2), which keeps the rollup of older gateways away.
-- Index: none needed, one row each.
select
    p.sealed_to,
    d.pass,
    case when $1::boolean then true else pg_try_advisory_lock_shared($2) end as is_shared
from hours_progress as p
cross join hours_pass as d
