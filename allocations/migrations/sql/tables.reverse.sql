DROP TABLE rate_limits;
ALTER TABLE port_allocations RESET (fillfactor);
ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_range_copy_fk;
ALTER TABLE port_ranges DROP CONSTRAINT port_ranges_copied;
ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_range_fk;
ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_project_fk;
ALTER TABLE port_ranges DROP CONSTRAINT port_ranges_project_fk;
