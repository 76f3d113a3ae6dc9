"""The one typed definition of a study, from which checks, flags, schema and option table follow."""
