DROP TRIGGER port_allocations_guard ON port_allocations;
DROP FUNCTION guard_allocation();
ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_canonical_host;
DROP FUNCTION canonical_host(text);
