//! Drills a replica: restore, check, record, alert.
