"""Parts shared by losses."""
