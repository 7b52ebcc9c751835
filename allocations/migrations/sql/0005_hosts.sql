ALTER TABLE hosts ADD CONSTRAINT hosts_canonical CHECK (coalesce(canonical_host(name) = name, false));

-- This machine, and the hosts that audits have connected to so far.
INSERT INTO hosts (name, approved_by) VALUES ('localhost', 'Portal');
INSERT INTO hosts (name, approved_by)
    SELECT DISTINCT hostname, 'upgrade' FROM port_allocations WHERE status <> 'released'
    ON CONFLICT DO NOTHING;
