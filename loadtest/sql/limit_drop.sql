-- What the limit L1 was measured in.
DROP SCHEMA wattgate_limits CASCADE
