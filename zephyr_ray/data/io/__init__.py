"""Reading raw rows from files, URIs and datasets; writing kept and dropped rows."""
