"""Object stores: the only room that knows fsspec's file systems, their sessions and their failures."""
