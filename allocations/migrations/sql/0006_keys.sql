-- Who may come in: tokens that stay what they were made as, the admin who cannot be removed, and limits of requests.

CREATE FUNCTION guard_token_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.public_id, NEW.secret_hash, NEW.user_id, NEW.role, NEW.created_at, NEW.created_by)
        IS DISTINCT FROM
       (OLD.id, OLD.public_id, OLD.secret_hash, OLD.user_id, OLD.role, OLD.created_at, OLD.created_by)
       OR (OLD.is_limited AND NOT NEW.is_limited) OR NEW.expires_at > OLD.expires_at THEN
        RAISE EXCEPTION 'token ptl_%_… keeps its secret, owner and role, and its rights never grow: make a new one',
            OLD.public_id USING ERRCODE = 'check_violation', CONSTRAINT = 'api_tokens_identity';
    ELSIF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'token ptl_%_… was revoked on %, for good: make a new one', OLD.public_id, OLD.revoked_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'api_tokens_revoked_for_good';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER api_tokens_guard BEFORE UPDATE ON api_tokens FOR EACH ROW EXECUTE FUNCTION guard_token_v1();
ALTER TABLE api_tokens ENABLE ALWAYS TRIGGER api_tokens_guard;


-- Refuses the commit after which no active admin would be left: a superuser, or somebody in the group admin.
CREATE FUNCTION guard_last_admin_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was_admin boolean;
BEGIN
    IF TG_TABLE_NAME = 'auth_user_groups' THEN
        was_admin := NOT EXISTS (SELECT FROM auth_user u WHERE u.id = OLD.user_id AND NOT u.is_active)
                 AND NOT EXISTS (SELECT FROM auth_group g WHERE g.id = OLD.group_id AND g.name <> 'admin');
    ELSIF TG_TABLE_NAME = 'auth_group' THEN
        was_admin := OLD.name = 'admin';
    ELSE
        was_admin := OLD.is_active AND (OLD.is_superuser OR EXISTS (
            SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
             WHERE m.user_id = OLD.id AND g.name = 'admin'));
    END IF;
    IF NOT was_admin THEN
        RETURN NULL;
    END IF;
    -- Of two who remove each other, the second looks again when the first is done.
    PERFORM pg_advisory_xact_lock(hashtextextended('portal last admin', 0));
    IF NOT EXISTS (
        SELECT FROM auth_user u
         WHERE u.is_active AND (u.is_superuser OR EXISTS (
            SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
             WHERE m.user_id = u.id AND g.name = 'admin'))) THEN
        RAISE EXCEPTION 'the last admin cannot be removed: make another one first'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'auth_user_last_admin';
    END IF;
    RETURN NULL;
END $$;

-- At the commit, because a form takes roles away before it gives others.
CREATE CONSTRAINT TRIGGER auth_user_last_admin AFTER UPDATE OF is_active, is_superuser OR DELETE ON auth_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v1();
CREATE CONSTRAINT TRIGGER auth_user_groups_last_admin AFTER UPDATE OR DELETE ON auth_user_groups
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v1();
CREATE CONSTRAINT TRIGGER auth_group_last_admin AFTER UPDATE OF name OR DELETE ON auth_group
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v1();
ALTER TABLE auth_user ENABLE ALWAYS TRIGGER auth_user_last_admin;
ALTER TABLE auth_user_groups ENABLE ALWAYS TRIGGER auth_user_groups_last_admin;
ALTER TABLE auth_group ENABLE ALWAYS TRIGGER auth_group_last_admin;


-- Limits of requests, shared by all workers. Unlogged: a crash forgets them, and no commit waits for the disk.
CREATE UNLOGGED TABLE rate_limits (
    key text PRIMARY KEY,
    -- When the bucket is empty again, if nothing more comes.
    settled_at timestamptz NOT NULL
);

-- Counts one request against each key, and says for how many seconds the caller must wait; 0 is: go on.
-- The generic cell rate algorithm (ITU-T I.371) with a burst of one minute's worth; a refused request is not counted.
CREATE FUNCTION count_request(keys text[], per_minute integer[]) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    step interval;
    wait interval;
BEGIN
    FOR i IN 1 .. cardinality(keys) LOOP
        step := interval '1 minute' / per_minute[i];
        INSERT INTO rate_limits AS r VALUES (keys[i], moment + step)
            ON CONFLICT (key) DO UPDATE SET settled_at = greatest(r.settled_at, moment) + step
             WHERE greatest(r.settled_at, moment) + step <= moment + interval '1 minute';
        IF NOT FOUND THEN
            SELECT settled_at + step - interval '1 minute' - moment INTO wait FROM rate_limits WHERE key = keys[i];
            RETURN greatest(extract(epoch FROM wait), 0.001);
        END IF;
    END LOOP;
    RETURN 0;
END $$;
