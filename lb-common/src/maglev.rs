//! Maglev tables.
