CREATE OR REPLACE FUNCTION guard_token_projects() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse to give a token further projects after the transaction that created it.
DECLARE
    token api_tokens;
BEGIN
    SELECT * INTO token FROM api_tokens t WHERE t.id = NEW.token_id;
    IF TG_OP = 'UPDATE' OR token.created_at < transaction_timestamp() THEN
        RAISE EXCEPTION 'token ptl_%_… keeps its projects: create a new one', token.public_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'api_tokens_identity';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER api_token_projects_guard BEFORE INSERT OR UPDATE ON api_token_projects
    FOR EACH ROW EXECUTE FUNCTION guard_token_projects();
ALTER TABLE api_token_projects ENABLE ALWAYS TRIGGER api_token_projects_guard;
