ALTER TABLE hosts DROP CONSTRAINT hosts_canonical;
