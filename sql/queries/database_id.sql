-- No index: the table has one row.
select database_id from gateway_database
