DROP TABLE quiet_audits;
