-- Reservations: a block of ports that is held for later, in one row. Each of its ports keeps a row in port_allocations,
-- so that the index there decides who holds a port.

ALTER TABLE reservations ADD CONSTRAINT reservations_project_fk FOREIGN KEY (project_id) REFERENCES projects (id);
ALTER TABLE reservations ADD CONSTRAINT reservations_canonical_host
    CHECK (released_at IS NOT NULL OR coalesce(canonical_host(hostname) = hostname, false));
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_reservation_fk
    FOREIGN KEY (reservation_id) REFERENCES reservations (id);


-- What was reserved so far: each block that was reserved alike gets a row.
WITH ports AS (
    SELECT *, port_number - row_number() OVER (
               PARTITION BY project_id, hostname, protocol, description, expires_at, allocated_by, token_id
               ORDER BY port_number) AS island
      FROM port_allocations
     WHERE status = 'reserved'
), blocks AS (
    SELECT gen_random_uuid() AS id, project_id, hostname, protocol, description, expires_at, allocated_by, island,
           min(port_number) AS start_port, max(port_number) AS end_port, min(allocated_at) AS reserved_at,
           array_agg(ports.id) AS port_ids
      FROM ports
     GROUP BY project_id, hostname, protocol, description, expires_at, allocated_by, token_id, island
), made AS (
    INSERT INTO reservations (id, project_id, hostname, protocol, start_port, end_port, description, expires_at,
                              reserved_at, reserved_by)
    SELECT id, project_id, hostname, protocol, start_port, end_port, description, expires_at, reserved_at, allocated_by
      FROM blocks
)
UPDATE port_allocations a SET reservation_id = b.id FROM blocks b WHERE a.id = ANY (b.port_ids);

ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_reservation
    CHECK (status = 'released' OR (status = 'reserved') = (reservation_id IS NOT NULL));


CREATE FUNCTION guard_reservation() RETURNS trigger LANGUAGE plpgsql AS $$
-- Fill in who reserves, and refuse what may never happen to a reservation. The settings are those of guard_allocation.
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the reservation of %-% is history and is never deleted: release its ports instead',
            OLD.start_port, OLD.end_port USING ERRCODE = 'check_violation', CONSTRAINT = 'reservations_kept';
    ELSIF TG_OP = 'UPDATE' THEN
        IF OLD.released_at IS NOT NULL
           OR (NEW.id, NEW.project_id, NEW.hostname, NEW.protocol, NEW.reserved_at, NEW.reserved_by)
              IS DISTINCT FROM (OLD.id, OLD.project_id, OLD.hostname, OLD.protocol, OLD.reserved_at, OLD.reserved_by)
        THEN
            RAISE EXCEPTION 'the reservation of %-% keeps what it is, and never changes after its release',
                OLD.start_port, OLD.end_port USING ERRCODE = 'check_violation', CONSTRAINT = 'reservations_identity';
        END IF;
        RETURN NEW;
    END IF;
    IF pg_trigger_depth() > 1 THEN  -- a part of a block, which keeps who reserved it
        RETURN NEW;
    END IF;
    NEW.reserved_by := left(coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255);
    NEW.reserved_at := statement_timestamp();
    NEW.released_at := NULL;
    IF current_setting('portal.agent', true) = 'on'
       AND (SELECT mode FROM projects WHERE id = NEW.project_id) = 'ask' THEN
        -- Otherwise an agent could keep a port without asking anybody.
        NEW.expires_at := least(NEW.expires_at, statement_timestamp() + interval '1 day');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER reservations_guard BEFORE INSERT OR UPDATE OR DELETE ON reservations
    FOR EACH ROW EXECUTE FUNCTION guard_reservation();


CREATE FUNCTION tell_reserved_ports() RETURNS trigger LANGUAGE plpgsql AS $$
-- Copy the note and the expiry of a reservation to its ports. The allocator reads the expiry there.
BEGIN
    UPDATE port_allocations a SET description = NEW.description, expires_at = NEW.expires_at
     WHERE a.reservation_id = NEW.id AND a.status = 'reserved';
    RETURN NULL;
END $$;

CREATE TRIGGER reservations_told AFTER UPDATE OF description, expires_at ON reservations
    FOR EACH ROW WHEN ((OLD.description, OLD.expires_at) IS DISTINCT FROM (NEW.description, NEW.expires_at))
    EXECUTE FUNCTION tell_reserved_ports();


CREATE FUNCTION follow_reserved_ports() RETURNS trigger LANGUAGE plpgsql AS $$
-- When ports of a block are released, shrink the block to the ports that are left, or split it. What was released
-- becomes a reservation of its own, which is released.
DECLARE
    block reservations;
    island record;
    part uuid;
BEGIN
    IF NOT EXISTS (SELECT FROM old_ports WHERE status = 'reserved') THEN  -- most updates
        RETURN NULL;
    END IF;
    FOR block IN
        SELECT v.* FROM reservations v
         WHERE v.id IN (SELECT DISTINCT reservation_id FROM old_ports WHERE status = 'reserved')
           AND v.id IN (SELECT DISTINCT reservation_id FROM new_ports WHERE status = 'released')
         ORDER BY v.id FOR NO KEY UPDATE
    LOOP
        part := NULL;
        -- Gaps and islands: ports that follow one another have the same difference to their position.
        FOR island IN
            SELECT status, min(port_number) AS start_port, max(port_number) AS end_port
              FROM (SELECT a.status, a.port_number,
                           a.port_number - row_number() OVER (PARTITION BY a.status ORDER BY a.port_number) AS number
                      FROM port_allocations a WHERE a.reservation_id = block.id) ports
             GROUP BY status, number
             ORDER BY status = 'released', count(*) DESC, start_port
        LOOP
            IF part IS NULL THEN  -- the largest part that is left, so that few rows move, or all that was released
                part := block.id;
                UPDATE reservations v
                   SET start_port = island.start_port, end_port = island.end_port,
                       released_at = CASE island.status WHEN 'released' THEN clock_timestamp() END
                 WHERE v.id = block.id;
            ELSE
                INSERT INTO reservations (project_id, hostname, protocol, start_port, end_port, description, expires_at,
                                          reserved_at, reserved_by, released_at)
                    VALUES (block.project_id, block.hostname, block.protocol, island.start_port, island.end_port,
                            block.description, block.expires_at, block.reserved_at, block.reserved_by,
                            CASE island.status WHEN 'released' THEN clock_timestamp() END)
                    RETURNING id INTO part;
                UPDATE port_allocations a SET reservation_id = part
                 WHERE a.reservation_id = block.id AND a.status = island.status
                   AND a.port_number BETWEEN island.start_port AND island.end_port;
            END IF;
        END LOOP;
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER port_allocations_blocks AFTER UPDATE ON port_allocations
    REFERENCING OLD TABLE AS old_ports NEW TABLE AS new_ports
    FOR EACH STATEMENT EXECUTE FUNCTION follow_reserved_ports();


CREATE FUNCTION check_reservation() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse a reservation whose ports are not exactly those from its start port to its end port.
DECLARE
    block reservations;
    held record;
BEGIN
    SELECT * INTO block FROM reservations WHERE id = NEW.id;  -- as it is at the end of the transaction
    SELECT count(*) AS ports, min(port_number) AS first, max(port_number) AS last INTO held
      FROM port_allocations a WHERE a.reservation_id = NEW.id AND a.status = 'reserved';
    IF (block.released_at IS NOT NULL AND held.ports > 0)
       OR (block.released_at IS NULL
           AND (held.ports, held.first, held.last)
               IS DISTINCT FROM (1 + block.end_port - block.start_port::bigint, block.start_port, block.end_port))
    THEN
        RAISE EXCEPTION 'the reservation of %-% does not have exactly these ports: reserve with reserve_ports(), and '
            'release the ports', block.start_port, block.end_port
            USING ERRCODE = 'check_violation', CONSTRAINT = 'reservations_complete';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER reservations_complete AFTER INSERT OR UPDATE OF start_port, end_port, released_at
    ON reservations DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_reservation();


CREATE FUNCTION reserve_ports(
    project_id uuid, start_port int, end_port int, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp',
    description text DEFAULT '', expires_at timestamptz DEFAULT NULL,
    OUT reservation_id uuid, OUT refused_port int
) LANGUAGE plpgsql AS $$
-- Reserve the ports from start_port to end_port for a project, all or none. If one cannot be reserved, because it is
-- held or lies in no active range that the project may use, return the lowest such port as refused_port.
#variable_conflict use_column
DECLARE
    reserved int;
BEGIN
    -- No range changes until this transaction ends.
    PERFORM FROM port_ranges r
      WHERE r.span && int4range(reserve_ports.start_port, reserve_ports.end_port, '[]')
      ORDER BY r.start_port FOR KEY SHARE;
    SELECT min(port) INTO refused_port FROM generate_series(reserve_ports.start_port, reserve_ports.end_port) port
     WHERE NOT EXISTS (
            SELECT FROM port_ranges r
             WHERE r.span @> port AND r.is_active AND (r.project_id = reserve_ports.project_id OR r.is_shared))
        OR EXISTS (
            SELECT FROM port_allocations a
             WHERE a.hostname = reserve_ports.hostname AND a.protocol = reserve_ports.protocol
               AND a.port_number = port AND a.status <> 'released'
               AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp()));
    IF refused_port IS NOT NULL THEN
        RETURN;
    END IF;
    UPDATE port_allocations a SET status = 'released'
     WHERE a.hostname = reserve_ports.hostname AND a.protocol = reserve_ports.protocol
       AND a.port_number BETWEEN reserve_ports.start_port AND reserve_ports.end_port
       AND a.status IN ('reserved', 'pending') AND a.expires_at <= statement_timestamp();
    INSERT INTO reservations (project_id, start_port, end_port, hostname, protocol, description, expires_at)
        VALUES (reserve_ports.project_id, reserve_ports.start_port, reserve_ports.end_port, reserve_ports.hostname,
                reserve_ports.protocol, reserve_ports.description, reserve_ports.expires_at)
        RETURNING id INTO reservation_id;
    INSERT INTO port_allocations AS a
        (project_id, port_range_id, port_number, status, hostname, protocol, reservation_id)
        SELECT reserve_ports.project_id, r.id, port, 'reserved', reserve_ports.hostname, reserve_ports.protocol,
               reserve_ports.reservation_id
          FROM generate_series(reserve_ports.start_port, reserve_ports.end_port) port
               JOIN port_ranges r ON r.span @> port
         ORDER BY port
        ON CONFLICT (hostname, protocol, port_number) WHERE a.status <> 'released' DO NOTHING;
    GET DIAGNOSTICS reserved = ROW_COUNT;
    IF reserved <= reserve_ports.end_port - reserve_ports.start_port THEN
        RAISE EXCEPTION 'one of the ports %-% was taken at this moment', reserve_ports.start_port,
            reserve_ports.end_port USING ERRCODE = 'unique_violation', CONSTRAINT = 'port_allocations_one_holder';
    END IF;
END $$;


CREATE OR REPLACE FUNCTION guard_allocation() RETURNS trigger
    LANGUAGE plpgsql
AS $$
-- Fill in the columns that no caller sets (copy of the range, actor, token, time of release), and refuse what may never
-- happen to an allocation.
--
-- Transaction-local settings name the caller: portal.actor, portal.token (the id of its token), and portal.agent, which
-- is 'on' for an agent. Where a project's mode is `ask`, a person decides about the ports of agents.
DECLARE
    project projects;
    block reservations;
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
        -- The lock waits for a transaction that is changing the range, so that the copy is of the changed range.
        SELECT span, project_id, is_shared INTO NEW.span, NEW.range_project_id, NEW.range_is_shared
            FROM port_ranges WHERE id = NEW.port_range_id FOR KEY SHARE;
        NEW.allocated_by := left(
            coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255);
        NEW.token_id := nullif(current_setting('portal.token', true), '')::uuid;
        IF current_setting('portal.agent', true) = 'on' THEN
            SELECT * INTO project FROM projects WHERE id = NEW.project_id;
            IF project.agent_quota IS NOT NULL AND NEW.token_id IS NOT NULL THEN
                -- Of two calls with one token, the second waits and counts what the first has taken.
                PERFORM pg_advisory_xact_lock(hashtextextended('quota ' || NEW.project_id || NEW.token_id, 0));
                SELECT count(*) INTO held_by_token FROM port_allocations a
                 WHERE a.token_id = NEW.token_id AND a.project_id = NEW.project_id AND a.status <> 'released'
                   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());
                IF held_by_token >= project.agent_quota THEN
                    RAISE EXCEPTION 'This token holds % of the % ports that each may hold in %',
                        held_by_token, project.agent_quota, project.name
                        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_quota';
                END IF;
            END IF;
            IF project.mode = 'ask' THEN
                -- A reservation expires too: otherwise an agent could keep a port without asking anybody.
                NEW.expires_at := least(NEW.expires_at, statement_timestamp() + interval '1 day');
                NEW.status := CASE NEW.status WHEN 'allocated' THEN 'pending' ELSE NEW.status END;
            END IF;
        END IF;
        IF NEW.reservation_id IS NOT NULL THEN
            SELECT * INTO block FROM reservations WHERE id = NEW.reservation_id;
            NEW.description := block.description;
            NEW.expires_at := block.expires_at;
        END IF;
    END IF;

    IF NEW.status = 'reserved' AND (
            TG_OP = 'INSERT' OR (NEW.reservation_id, NEW.description, NEW.expires_at)
                                IS DISTINCT FROM (OLD.reservation_id, OLD.description, OLD.expires_at)) THEN
        SELECT * INTO block FROM reservations WHERE id = NEW.reservation_id;
        IF NOT coalesce(
                (block.project_id, block.hostname, block.protocol) = (NEW.project_id, NEW.hostname, NEW.protocol)
                AND NEW.port_number BETWEEN block.start_port AND block.end_port AND block.released_at IS NULL, false)
        THEN
            RAISE EXCEPTION 'port % of % lies in no such reservation: reserve it with reserve_ports()', NEW.port_number,
                NEW.hostname USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_reservation';
        ELSIF (NEW.description, NEW.expires_at) IS DISTINCT FROM (block.description, block.expires_at) THEN
            RAISE EXCEPTION 'port % of % has the note and the expiry of its reservation: change them there',
                NEW.port_number, NEW.hostname
                USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_note';
        END IF;
    END IF;
    IF TG_OP = 'INSERT' THEN
        RETURN NEW;
    ELSIF OLD.status = 'released' AND pg_trigger_depth() > 1
          AND to_jsonb(NEW) - 'reservation_id' = to_jsonb(OLD) - 'reservation_id' THEN
        RETURN NEW;  -- the part of a block that was released becomes a block of its own
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
    ELSIF NEW.reservation_id IS DISTINCT FROM OLD.reservation_id AND pg_trigger_depth() = 1 THEN
        RAISE EXCEPTION 'port % of % keeps its reservation', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_identity';
    ELSIF (NEW.expires_at, NEW.service_name) IS DISTINCT FROM (OLD.expires_at, OLD.service_name)
          AND current_setting('portal.agent', true) = 'on'
          AND (SELECT mode FROM projects WHERE id = NEW.project_id) = 'ask' THEN
        RAISE EXCEPTION 'in this project a person decides which service holds port % of %, and until when',
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


CREATE OR REPLACE FUNCTION record_event() RETURNS trigger
    LANGUAGE plpgsql
AS $$
-- Write one event for the change of one row. The trigger's argument names what the row is.
--
-- The transaction-local settings portal.actor and portal.source say who made the change, and from where. Without them
-- the change came from a database session: its role is the actor.
DECLARE
    -- As JSON, because the tables have different columns.
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    subject jsonb := coalesce(after, before);
    verb text := CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END;
    label text;
    block jsonb;
    -- Of a new or deleted row: all values but keys and copies.
    changes jsonb := jsonb_strip_nulls(subject) - ARRAY['id', 'project_id', 'port_range_id', 'span',
        'range_project_id', 'range_is_shared', 'created_at', 'allocated_at', 'allocated_by', 'token_id',
        'reservation_id', 'reserved_at', 'reserved_by', 'released_at'];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(key, jsonb_build_array(o.value, n.value)) INTO changes
            FROM jsonb_each(before) o JOIN jsonb_each(after) n USING (key)
            WHERE o.value IS DISTINCT FROM n.value
              AND key NOT IN ('span', 'range_project_id', 'range_is_shared', 'health', 'last_used_at',
                              'reservation_id');
        IF changes IS NULL THEN  -- only a copy followed its range, or an audit recorded what it saw
            RETURN NULL;
        END IF;
    END IF;
    CASE TG_TABLE_NAME
        WHEN 'projects' THEN
            label := subject ->> 'name';
        WHEN 'port_ranges' THEN
            label := format('%s %s-%s', subject ->> 'range_name', subject ->> 'start_port', subject ->> 'end_port');
        WHEN 'reservations' THEN
            -- Of a block that shrinks, the ports that it had.
            block := coalesce(before, after);
            label := concat_ws('-', block ->> 'start_port', nullif(block ->> 'end_port', block ->> 'start_port'))
                || '/' || (block ->> 'protocol')
                || CASE WHEN block ->> 'hostname' <> 'localhost' THEN ' on ' || (block ->> 'hostname') ELSE '' END;
            verb := CASE WHEN after ->> 'released_at' IS NOT NULL THEN 'released'
                         WHEN verb = 'created' AND (after ->> 'reserved_at')::timestamptz >= now() THEN 'reserved'
                         ELSE 'updated' END;
            IF TG_OP = 'INSERT' AND verb = 'updated' THEN  -- a part of a block that was split
                changes := jsonb_build_object('start_port', jsonb_build_array(NULL, after -> 'start_port'),
                                              'end_port', jsonb_build_array(NULL, after -> 'end_port'));
            END IF;
        ELSE
            label := coalesce(subject ->> 'service_name', '(reserved)')
                || CASE WHEN subject ->> 'instance' <> '0' THEN '#' || (subject ->> 'instance') ELSE '' END
                || format(' %s/%s', subject ->> 'port_number', subject ->> 'protocol')
                || CASE WHEN subject ->> 'hostname' <> 'localhost' THEN ' on ' || (subject ->> 'hostname') ELSE '' END;
            IF verb = 'created' OR (after ->> 'status') <> (before ->> 'status') THEN
                verb := CASE WHEN after ->> 'status' = 'pending' THEN 'requested'
                             WHEN before ->> 'status' = 'pending' AND after ->> 'status' = 'allocated' THEN 'approved'
                             ELSE after ->> 'status' END;
            END IF;
    END CASE;
    INSERT INTO events (at, actor, source, verb, subject, subject_id, project_id, label, changes)
    VALUES (
        clock_timestamp(),
        left(coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255),
        left(coalesce(nullif(current_setting('portal.source', true), ''), 'database'), 50),
        verb,
        TG_ARGV[0],
        (subject ->> 'id')::uuid,
        coalesce(subject ->> 'project_id', subject ->> 'id')::uuid,
        label,
        changes
    );
    RETURN NULL;
END $$;

-- The application may not write events. The trigger does, as the owner of the function; see 0006.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION record_event() SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END $$;

CREATE TRIGGER reservations_event AFTER INSERT OR UPDATE ON reservations
    FOR EACH ROW EXECUTE FUNCTION record_event('reservation');
CREATE TRIGGER reservations_no_truncate BEFORE TRUNCATE ON reservations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The history of a reservation is that of its block. Its ports have none of their own, except for their details.
DROP TRIGGER port_allocations_event_insert ON port_allocations;
CREATE TRIGGER port_allocations_event_insert AFTER INSERT ON port_allocations
    FOR EACH ROW WHEN (NEW.reservation_id IS NULL) EXECUTE FUNCTION record_event('allocation');
DROP TRIGGER port_allocations_event_update ON port_allocations;
CREATE TRIGGER port_allocations_event_update AFTER UPDATE ON port_allocations
    FOR EACH ROW
    WHEN ((OLD.service_type, OLD.cloudflare_hostname, OLD.metadata, OLD.owner)
          IS DISTINCT FROM (NEW.service_type, NEW.cloudflare_hostname, NEW.metadata, NEW.owner)
          OR (NEW.reservation_id IS NULL
              AND (OLD.status, OLD.service_name, OLD.description, OLD.expires_at)
                  IS DISTINCT FROM (NEW.status, NEW.service_name, NEW.description, NEW.expires_at)))
    EXECUTE FUNCTION record_event('allocation');
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_insert;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_update;

ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_blocks;
ALTER TABLE reservations ENABLE ALWAYS TRIGGER reservations_guard;
ALTER TABLE reservations ENABLE ALWAYS TRIGGER reservations_told;
ALTER TABLE reservations ENABLE ALWAYS TRIGGER reservations_complete;
ALTER TABLE reservations ENABLE ALWAYS TRIGGER reservations_event;
ALTER TABLE reservations ENABLE ALWAYS TRIGGER reservations_no_truncate;
