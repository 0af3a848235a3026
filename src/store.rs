//! The tables: SQL and the values that come out of it, one file for each family of tables. No policy.
