-- The allocator. Everything that hands out a port ends in hold_port.

-- The lowest port from first to last that nothing holds and on which nothing unregistered was seen, or NULL.
-- It walks the index of held ports in order and stops at the first gap. An expired reservation is no obstacle.
-- With a lock_key it takes, for the length of the transaction, an advisory lock on the port it returns, and steps
-- over ports that another transaction has locked; passed_over is the lowest of those.
CREATE FUNCTION next_free_port(
    first int, last int, hostname text, protocol text, lock_key int DEFAULT NULL,
    OUT free int, OUT passed_over int
) LANGUAGE plpgsql AS $$
DECLARE
    taken int;
BEGIN
    free := first;
    FOR taken IN
        SELECT a.port_number FROM port_allocations a
         WHERE a.hostname = next_free_port.hostname AND a.protocol = next_free_port.protocol
           AND a.port_number BETWEEN first AND last AND a.status <> 'released'
           AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
        UNION ALL
        SELECT l.port FROM listeners l
         WHERE l.hostname = next_free_port.hostname AND l.protocol = next_free_port.protocol
           AND l.port BETWEEN first AND last
        UNION ALL
        SELECT last + 1
        ORDER BY 1
    LOOP
        WHILE free < taken LOOP
            IF lock_key IS NULL OR pg_try_advisory_xact_lock(lock_key, free) THEN
                RETURN;
            END IF;
            passed_over := coalesce(passed_over, free);
            free := free + 1;
        END LOOP;
        free := greatest(free, taken + 1);
    END LOOP;
    free := NULL;
END $$;


-- The lowest free port of a range, or NULL where the range is full. A look, not a promise: allocate_port promises.
CREATE FUNCTION find_available_port(range_id uuid, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
    r port_ranges;
BEGIN
    SELECT * INTO r FROM port_ranges WHERE id = range_id;
    IF r.id IS NULL THEN
        RAISE EXCEPTION 'there is no range %', range_id
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'port_ranges_known';
    END IF;
    RETURN (next_free_port(r.start_port, r.end_port, lower(hostname), protocol)).free;
END $$;


-- The lowest instance of a service that is not in use; 0 is the one that get-port returns.
CREATE FUNCTION next_instance_of(project uuid, service text, host text, proto text) RETURNS int
LANGUAGE sql STABLE AS $$
    WITH used AS (
        SELECT a.instance FROM port_allocations a
         WHERE a.project_id = project AND a.service_name = service AND a.hostname = host AND a.protocol = proto
           AND a.status <> 'released')
    SELECT min(free) FROM (SELECT 0 AS free UNION ALL SELECT instance + 1 FROM used) candidates
     WHERE free NOT IN (SELECT instance FROM used)
$$;


-- Holds one port for a service: `wanted`, or the lowest free one of the ranges in the order given. NULL comes
-- back where they are full, or where `wanted` is held. With `reuse` the service's instance 0 comes back if it exists.
--
-- Two allocators in one range neither wait for each other's commit nor get the same port: next_free_port locks the
-- port it finds and steps over one that another transaction is just taking, and the unique index has the last word.
-- Only when nothing else is left does an allocator wait for such a neighbour, who may roll back.
CREATE FUNCTION hold_port(
    project uuid, ranges uuid[], service text, kind text, host text, proto text, wanted int DEFAULT NULL,
    state text DEFAULT 'allocated', note text DEFAULT '', tunnel text DEFAULT NULL, extra jsonb DEFAULT '{}',
    expiry timestamptz DEFAULT NULL, reuse boolean DEFAULT false
) RETURNS port_allocations LANGUAGE plpgsql AS $$
DECLARE
    socket_key int := hashtext(host || ' ' || proto);
    candidate_range uuid;
    r port_ranges;
    held port_allocations;
    candidate int;
    walk record;
    waiting_for int;  -- the lowest port that another transaction is just taking
    next_instance int := 0;
BEGIN
    IF service IS NOT NULL THEN
        -- Callers for one service queue up here; the rest of the world does not notice.
        PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(' ', project, service, host, proto), 0));
        SELECT * INTO held FROM port_allocations a
            WHERE a.project_id = project AND a.service_name = service AND a.hostname = host
              AND a.protocol = proto AND a.instance = 0 AND a.status <> 'released';
        IF held.status = 'pending' AND held.expires_at <= statement_timestamp() THEN  -- nobody decided in time
            UPDATE port_allocations a SET status = 'released' WHERE a.id = held.id;
        ELSIF reuse AND held.status IN ('allocated', 'pending') THEN
            RETURN held;
        ELSIF held.id IS NOT NULL THEN
            next_instance := next_instance_of(project, service, host, proto);
        END IF;
    END IF;

    LOOP
        waiting_for := NULL;
        FOREACH candidate_range IN ARRAY ranges LOOP
            SELECT * INTO r FROM port_ranges WHERE id = candidate_range AND is_active;
            CONTINUE WHEN r.id IS NULL;
            candidate := coalesce(wanted, r.start_port);
            LOOP
                IF wanted IS NULL THEN
                    walk := next_free_port(candidate, r.end_port, host, proto, socket_key);
                    candidate := walk.free;
                    waiting_for := coalesce(waiting_for, walk.passed_over);
                    EXIT WHEN candidate IS NULL;
                END IF;
                FOR attempt IN 1..2 LOOP
                    INSERT INTO port_allocations AS a
                        (project_id, port_range_id, port_number, service_name, instance, service_type, description,
                         status, hostname, protocol, cloudflare_hostname, metadata, expires_at)
                        VALUES (project, r.id, candidate, service, next_instance, kind, note,
                                state, host, proto, tunnel, extra, expiry)
                        ON CONFLICT (hostname, protocol, port_number) WHERE a.status <> 'released' DO NOTHING
                        RETURNING a.* INTO held;
                    IF FOUND THEN RETURN held; END IF;
                    -- An expired reservation gives way here and now, whether or not a job has run.
                    UPDATE port_allocations a SET status = 'released'
                     WHERE a.hostname = host AND a.protocol = proto AND a.port_number = candidate
                       AND a.status IN ('reserved', 'pending') AND a.expires_at <= statement_timestamp();
                    EXIT WHEN NOT FOUND;
                END LOOP;
                EXIT WHEN wanted IS NOT NULL;
                candidate := candidate + 1;
            END LOOP;
        END LOOP;
        IF waiting_for IS NULL THEN RETURN NULL; END IF;
        PERFORM pg_advisory_xact_lock(socket_key, waiting_for);
    END LOOP;
END $$;


-- A new port of one range for a service: the whole row, or an error that says what is wrong.
CREATE FUNCTION allocate_port(
    project_id uuid, range_id uuid, service_name text, service_type text,
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS port_allocations LANGUAGE plpgsql AS $$
DECLARE
    r port_ranges;
    held port_allocations;
BEGIN
    held := hold_port(project_id, ARRAY[range_id], service_name, service_type, lower(hostname), protocol);
    IF held.id IS NOT NULL THEN
        RETURN held;
    END IF;
    SELECT * INTO r FROM port_ranges WHERE id = range_id;
    IF r.id IS NULL THEN
        RAISE EXCEPTION 'there is no range %', range_id
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'port_ranges_known';
    ELSIF NOT r.is_active THEN
        RAISE EXCEPTION 'range % is not active: no ports are given out from it', r.range_name
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_active';
    END IF;
    RAISE EXCEPTION 'range % (%-%) has no free port on %/%: release one, or extend the range',
        r.range_name, r.start_port, r.end_port, hostname, protocol
        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_not_exhausted';
END $$;


-- Releases what holds the port; false where nothing did.
CREATE FUNCTION release_port(port int, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE port_allocations a SET status = 'released'
     WHERE a.hostname = lower(release_port.hostname) AND a.protocol = release_port.protocol
       AND a.port_number = port AND a.status <> 'released';
    RETURN FOUND;
END $$;
