"""The replicas on disk (`spool_dir`), and the files that they are kept in."""
