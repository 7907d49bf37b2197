"""What people see: curves, tables, one page."""
