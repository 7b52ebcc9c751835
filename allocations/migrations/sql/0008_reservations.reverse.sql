DROP FUNCTION reserve_ports(uuid, int, int, text, text, text, timestamptz);
DROP TRIGGER port_allocations_blocks ON port_allocations;
DROP TRIGGER reservations_guard ON reservations;
DROP TRIGGER reservations_told ON reservations;
DROP TRIGGER reservations_complete ON reservations;
DROP TRIGGER reservations_event ON reservations;
DROP TRIGGER reservations_no_truncate ON reservations;
DROP FUNCTION guard_reservation();
DROP FUNCTION tell_reserved_ports();
DROP FUNCTION follow_reserved_ports();
DROP FUNCTION check_reservation();

DROP TRIGGER port_allocations_event_insert ON port_allocations;
CREATE TRIGGER port_allocations_event_insert AFTER INSERT ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION record_event('allocation');
DROP TRIGGER port_allocations_event_update ON port_allocations;
CREATE TRIGGER port_allocations_event_update AFTER UPDATE ON port_allocations
    FOR EACH ROW
    WHEN ((OLD.status, OLD.service_name, OLD.service_type, OLD.description, OLD.cloudflare_hostname, OLD.metadata,
           OLD.expires_at, OLD.owner)
          IS DISTINCT FROM
          (NEW.status, NEW.service_name, NEW.service_type, NEW.description, NEW.cloudflare_hostname, NEW.metadata,
           NEW.expires_at, NEW.owner))
    EXECUTE FUNCTION record_event('allocation');
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_insert;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_update;


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
    -- As JSON, because the three tables have different columns.
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    subject jsonb := coalesce(after, before);
    verb text := CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END;
    label text;
    -- Of a new or deleted row: all values but keys and copies.
    changes jsonb := jsonb_strip_nulls(subject) - ARRAY['id', 'project_id', 'port_range_id', 'span',
        'range_project_id', 'range_is_shared', 'created_at', 'allocated_at', 'allocated_by', 'token_id'];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(key, jsonb_build_array(o.value, n.value)) INTO changes
            FROM jsonb_each(before) o JOIN jsonb_each(after) n USING (key)
            WHERE o.value IS DISTINCT FROM n.value
              AND key NOT IN ('span', 'range_project_id', 'range_is_shared', 'health', 'last_used_at');
        IF changes IS NULL THEN  -- only a copy followed its range, or an audit recorded what it saw
            RETURN NULL;
        END IF;
    END IF;
    CASE TG_TABLE_NAME
        WHEN 'projects' THEN
            label := subject ->> 'name';
        WHEN 'port_ranges' THEN
            label := format('%s %s-%s', subject ->> 'range_name', subject ->> 'start_port', subject ->> 'end_port');
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

ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_reservation;
ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_reservation_fk;
UPDATE port_allocations SET reservation_id = NULL WHERE status = 'reserved';
ALTER TABLE reservations DROP CONSTRAINT reservations_project_fk;
ALTER TABLE reservations DROP CONSTRAINT reservations_canonical_host;
