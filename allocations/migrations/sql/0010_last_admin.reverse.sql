DROP TRIGGER auth_user_no_truncate ON auth_user;
DROP TRIGGER auth_user_groups_no_truncate ON auth_user_groups;
DROP TRIGGER auth_group_no_truncate ON auth_group;
DROP FUNCTION refuse_truncate_v1();
DROP TRIGGER user_limits_last_admin ON user_limits;
DROP TRIGGER auth_user_last_admin ON auth_user;
DROP TRIGGER auth_user_groups_last_admin ON auth_user_groups;
DROP TRIGGER auth_group_last_admin ON auth_group;
DROP FUNCTION guard_last_admin_v2();
DROP FUNCTION is_full_admin(integer);

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
