"""How queries and answers are written: one module a format, and one table that chooses among them."""
