"""A file's way: storage, artifact, engine, publication. Never touches a request."""
