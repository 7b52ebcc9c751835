-- History: each change of a project, range or allocation leaves an event, and nobody rewrites events.

CREATE OR REPLACE FUNCTION record_event() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER projects_event AFTER INSERT OR UPDATE OR DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION record_event('project');
CREATE TRIGGER port_ranges_event AFTER INSERT OR UPDATE OR DELETE ON port_ranges
    FOR EACH ROW EXECUTE FUNCTION record_event('range');
CREATE TRIGGER port_allocations_event_insert AFTER INSERT ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION record_event('allocation');
-- The condition saves the call for each row whose last_used_at and health an audit updates.
CREATE TRIGGER port_allocations_event_update AFTER UPDATE ON port_allocations
    FOR EACH ROW
    WHEN ((OLD.status, OLD.service_name, OLD.service_type, OLD.description, OLD.cloudflare_hostname, OLD.metadata,
           OLD.expires_at)
          IS DISTINCT FROM
          (NEW.status, NEW.service_name, NEW.service_type, NEW.description, NEW.cloudflare_hostname, NEW.metadata,
           NEW.expires_at))
    EXECUTE FUNCTION record_event('allocation');


CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse to change or remove events, and to empty a table with history.
BEGIN
    RAISE EXCEPTION '% on % is refused: history stays as it was written', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_kept';
END $$;

CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION refuse_change();
CREATE TRIGGER port_allocations_no_truncate BEFORE TRUNCATE ON port_allocations EXECUTE FUNCTION refuse_change();
CREATE TRIGGER port_ranges_no_truncate BEFORE TRUNCATE ON port_ranges EXECUTE FUNCTION refuse_change();
CREATE TRIGGER projects_no_truncate BEFORE TRUNCATE ON projects EXECUTE FUNCTION refuse_change();


-- ALWAYS: the triggers also fire in a session that acts as a replica, where ordinary triggers do not.
ALTER TABLE projects ENABLE ALWAYS TRIGGER projects_event;
ALTER TABLE projects ENABLE ALWAYS TRIGGER projects_no_truncate;
ALTER TABLE port_ranges ENABLE ALWAYS TRIGGER port_ranges_event;
ALTER TABLE port_ranges ENABLE ALWAYS TRIGGER port_ranges_no_truncate;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_insert;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_update;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_no_truncate;
ALTER TABLE events ENABLE ALWAYS TRIGGER events_append_only;
ALTER TABLE events ENABLE ALWAYS TRIGGER events_no_truncate;
