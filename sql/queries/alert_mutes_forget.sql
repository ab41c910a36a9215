-- Forgets mutes that have ended by $1.
-- Reads alert_mutes whole: at most a row for each device and kind that an operator has muted.
delete from alert_mutes
where muted_until <= $1
