"""The observer: a small process of root that tells Portal what only root can see.

If root starts Portal, the web server runs as an account without rights. It asks the observer over a Unix socket that
only this account can open. The observer answers three requests and no other: which process is listening on which port,
whether a directory exists, and restart a service that root has named in `restart.toml`.

`server` is the process, `client` asks it.
"""
