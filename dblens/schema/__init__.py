"""What a database is made of, as pure values: types, model, diff, order, hash."""
