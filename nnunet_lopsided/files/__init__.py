"""Files as such: JSON, tables, folders that appear only when complete, work on many at the same time."""
