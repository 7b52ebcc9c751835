-- In a project that asks, no agent keeps a port for longer than a day without a person's say: neither by a reservation
-- nor by a later expiry; and what a person has said yes to is not renamed by it.

CREATE FUNCTION guard_allocation_v3() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner projects;
    held_by_token int;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'port % of % is history and is never deleted: release it instead', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_kept';
    ELSIF TG_OP = 'INSERT' THEN
        IF NEW.status = 'released' THEN
            RAISE EXCEPTION 'port % cannot begin as released: allocate or reserve it', NEW.port_number
                USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_born_held';
        END IF;
        -- The lock waits for a range that is just being changed, so that the copy is of what it has become.
        SELECT span, project_id, is_shared INTO NEW.span, NEW.range_project_id, NEW.range_is_shared
            FROM port_ranges WHERE id = NEW.port_range_id FOR KEY SHARE;
        NEW.allocated_by := left(coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255);
        NEW.token_id := nullif(current_setting('portal.token', true), '')::uuid;
        IF current_setting('portal.agent', true) = 'on' THEN
            SELECT * INTO owner FROM projects WHERE id = NEW.project_id;
            IF owner.agent_quota IS NOT NULL AND NEW.token_id IS NOT NULL THEN
                -- Of two calls of one token, the second counts what the first has taken.
                PERFORM pg_advisory_xact_lock(hashtextextended('quota ' || NEW.project_id || NEW.token_id, 0));
                SELECT count(*) INTO held_by_token FROM port_allocations a
                 WHERE a.token_id = NEW.token_id AND a.project_id = NEW.project_id AND a.status <> 'released'
                   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());
                IF held_by_token >= owner.agent_quota THEN
                    RAISE EXCEPTION 'This token holds % of the % ports that each may hold in %',
                        held_by_token, owner.agent_quota, owner.name
                        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_quota';
                END IF;
            END IF;
            IF owner.mode = 'ask' THEN  -- also a reservation would keep a port without anybody's say
                NEW.expires_at := least(NEW.expires_at, statement_timestamp() + interval '1 day');
                NEW.status := CASE NEW.status WHEN 'allocated' THEN 'pending' ELSE NEW.status END;
            END IF;
        END IF;
        RETURN NEW;
    END IF;

    IF OLD.status = 'released' THEN
        RAISE EXCEPTION 'port % of % was released on %: a released allocation never changes, allocate a new one',
            OLD.port_number, OLD.hostname, OLD.released_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_released_for_good';
    ELSIF (NEW.id, NEW.project_id, NEW.port_range_id, NEW.hostname, NEW.protocol, NEW.port_number, NEW.instance,
           NEW.allocated_at, NEW.allocated_by, NEW.token_id) IS DISTINCT FROM
          (OLD.id, OLD.project_id, OLD.port_range_id, OLD.hostname, OLD.protocol, OLD.port_number, OLD.instance,
           OLD.allocated_at, OLD.allocated_by, OLD.token_id) THEN
        RAISE EXCEPTION 'port % of % cannot change its project, range, host, protocol, port or instance: '
            'release it and allocate another', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_identity';
    ELSIF (NEW.expires_at, NEW.service_name) IS DISTINCT FROM (OLD.expires_at, OLD.service_name)
          AND current_setting('portal.agent', true) = 'on'
          AND (SELECT mode FROM projects WHERE id = NEW.project_id) = 'ask' THEN
        RAISE EXCEPTION 'for which service and until when port % of % is held, a person decides in this project',
            OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_asked';
    ELSIF NEW.status = 'released' THEN
        NEW.released_at := clock_timestamp();
        NEW.span := NULL;
        NEW.range_project_id := NULL;
        NEW.range_is_shared := NULL;
    ELSIF OLD.status = 'pending' AND NEW.status = 'allocated'
          AND current_setting('portal.agent', true) IS DISTINCT FROM 'on' THEN
        NEW.expires_at := NULL;
    ELSIF NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'port % of % is %, which can only become released', OLD.port_number, OLD.hostname, OLD.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_status_order';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER port_allocations_guard ON port_allocations;
CREATE TRIGGER port_allocations_guard BEFORE INSERT OR UPDATE OR DELETE ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION guard_allocation_v3();
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_guard;
DROP FUNCTION guard_allocation_v2();


-- This machine had as many names as it has loopback addresses, and under each the same ports. Now it has one.
DO $$
DECLARE
    twice record;
BEGIN
    SELECT b.port_number, b.protocol, b.hostname, a.port_number AS other_port, a.hostname AS other_host INTO twice
      FROM port_allocations a JOIN port_allocations b
        ON a.protocol = b.protocol AND a.hostname < b.hostname
       AND (a.port_number = b.port_number
            OR (a.project_id, a.service_name, a.instance) = (b.project_id, b.service_name, b.instance))
     WHERE a.status <> 'released' AND b.status <> 'released'
       AND a.hostname ~ '^(localhost|127(\.[0-9]+){3}|0\.0\.0\.0|::1?)$'
       AND b.hostname ~ '^(localhost|127(\.[0-9]+){3}|0\.0\.0\.0|::1?)$'
     ORDER BY b.port_number LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'Port % of % and port % of % are of one machine, which Portal now calls localhost, and for one '
            'port or one service: release one of them, for example by SELECT release_port(%, %, %), and begin again',
            twice.port_number, twice.hostname, twice.other_port, twice.other_host,
            twice.port_number, quote_literal(twice.hostname), quote_literal(twice.protocol)
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_one_name';
    END IF;
    -- A host never changes otherwise.
    ALTER TABLE port_allocations DISABLE TRIGGER port_allocations_guard;
    UPDATE port_allocations SET hostname = 'localhost' WHERE hostname ~ '^(127(\.[0-9]+){3}|0\.0\.0\.0|::1?)$';
    ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_guard;
END $$;

-- A request that nobody decides on goes; one that somebody made to stay by SQL gets the day that all have.
UPDATE port_allocations SET expires_at = statement_timestamp() + interval '1 day'
 WHERE status = 'pending' AND expires_at IS NULL;
