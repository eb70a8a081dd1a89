"""Numbers under names or in columns: text tables, arrays and the containers that hold them."""
