-- What Django's Meta cannot say about the tables.

-- Immediate foreign keys with names of our own: Python turns the name of a constraint into an error.
ALTER TABLE port_ranges ADD CONSTRAINT port_ranges_project_fk
    FOREIGN KEY (project_id) REFERENCES projects (id);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_project_fk
    FOREIGN KEY (project_id) REFERENCES projects (id);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_range_fk
    FOREIGN KEY (port_range_id) REFERENCES port_ranges (id);

-- A held allocation carries a copy of its range's span, project and sharing. When the range changes, the cascade
-- updates the copy and checks the allocation's CHECKs again. So a range cannot shrink, move, change its project or stop
-- being shared under a held port, and no race can slip between. A released allocation has NULLs here, which this
-- foreign key ignores.
ALTER TABLE port_ranges ADD CONSTRAINT port_ranges_copied UNIQUE (id, span, project_id, is_shared);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_range_copy_fk
    FOREIGN KEY (port_range_id, span, range_project_id, range_is_shared)
    REFERENCES port_ranges (id, span, project_id, is_shared) ON UPDATE CASCADE;

-- An audit updates health and last_used_at of every row. No index holds those columns, so with free space on each page
-- these updates touch no index (heap-only tuples).
ALTER TABLE port_allocations SET (fillfactor = 80);

-- Rate limits, shared by all workers. The table is unlogged: a crash empties it, and no commit waits for the disk.
CREATE UNLOGGED TABLE rate_limits (
    key text PRIMARY KEY,
    settled_at timestamptz NOT NULL  -- when the bucket is empty again, if no further request comes
);
