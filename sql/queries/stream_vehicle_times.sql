-- When each vehicle's newest reading was taken, by its own time.
-- No index: every row is read. 20,000 of them are a few hundred pages; an index on the time would
-- cost each update of live status its place on the page (HOT).
select
    vehicle_id,
    ts
from vehicle_live_status
